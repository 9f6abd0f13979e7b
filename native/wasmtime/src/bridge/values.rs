//! Values of the component model as MessagePack, which docs/bridge.md describes. What a guest says is self-describing; what
//! it is answered is read by the type that the function has.

use std::sync::Arc;

use rmp::Marker;
use rmp::encode;
use wasmtime::component::{ResourceAny, ResourceDynamic, ResourceType, Type, Val, types};
use wasmtime::{Result, StoreContextMut, bail, format_err};

use super::connection::Guest;
use super::streams;

/// Types of MessagePack's extensions.
mod ext {
    pub const TUPLE: i8 = 1;
    pub const CASE: i8 = 2;
    pub const OK: i8 = 3;
    pub const ERR: i8 = 4;
    pub const FLAGS: i8 = 5;
    /// A resource that is handed over, and one that is lent.
    pub const OWN: i8 = 6;
    pub const BORROW: i8 = 7;
    /// What is read bit by bit, and once.
    pub const STREAM: i8 = 8;
    pub const FUTURE: i8 = 9;
}

/// Write a guest's value.
///
/// :raises: it is of a type that does not pass this way, as streams
pub fn write<T>(value: &Val, of: &Type, to: &mut Vec<u8>, store: &mut StoreContextMut<'_, T>) -> Result<()> {
    match (value, of) {
        (Val::Bool(it), _) => encode::write_bool(to, *it)?,
        (Val::S8(it), _) => integer(to, (*it).into())?,
        (Val::S16(it), _) => integer(to, (*it).into())?,
        (Val::S32(it), _) => integer(to, (*it).into())?,
        (Val::S64(it), _) => integer(to, *it)?,
        (Val::U8(it), _) => natural(to, (*it).into())?,
        (Val::U16(it), _) => natural(to, (*it).into())?,
        (Val::U32(it), _) => natural(to, (*it).into())?,
        (Val::U64(it), _) => natural(to, *it)?,
        (Val::Float32(it), _) => encode::write_f32(to, *it)?,
        (Val::Float64(it), _) => encode::write_f64(to, *it)?,
        (Val::Char(it), _) => encode::write_str(to, it.encode_utf8(&mut [0; 4]))?,
        (Val::String(it) | Val::Enum(it), _) => encode::write_str(to, it)?,
        (Val::List(items), Type::List(list)) => write_list(items, &list.ty(), to, store)?,
        (Val::FixedLengthList(items), Type::FixedLengthList(list)) => write_list(items, &list.ty(), to, store)?,
        (Val::Map(pairs), Type::Map(map)) => {
            encode::write_map_len(to, length(pairs.len())?)?;
            for (key, value) in pairs {
                write(key, &map.key(), to, store)?;
                write(value, &map.value(), to, store)?;
            }
        }
        (Val::Record(fields), Type::Record(record)) => {
            encode::write_map_len(to, length(fields.len())?)?;
            for ((name, value), field) in fields.iter().zip(record.fields()) {
                encode::write_str(to, name)?;
                write(value, &field.ty, to, store)?;
            }
        }
        (Val::Tuple(items), Type::Tuple(tuple)) => extension(to, ext::TUPLE, |to| {
            encode::write_array_len(to, length(items.len())?)?;
            items.iter().zip(tuple.types()).try_for_each(|(item, of)| write(item, &of, to, store))
        })?,
        (Val::Variant(name, payload), Type::Variant(variant)) => extension(to, ext::CASE, |to| {
            encode::write_array_len(to, 1 + u32::from(payload.is_some()))?;
            encode::write_str(to, name)?;
            let case = variant.cases().find(|case| case.name == name).and_then(|case| case.ty);
            write_payload(payload, case, to, store)
        })?,
        (Val::Option(None), _) => encode::write_nil(to)?,
        (Val::Option(Some(it)), Type::Option(option)) => write(it, &option.ty(), to, store)?,
        (Val::Result(Ok(it)), Type::Result(of)) => write_result(ext::OK, it, of.ok(), to, store)?,
        (Val::Result(Err(it)), Type::Result(of)) => write_result(ext::ERR, it, of.err(), to, store)?,
        (Val::Flags(names), _) => extension(to, ext::FLAGS, |to| {
            encode::write_array_len(to, length(names.len())?)?;
            Ok(names.iter().try_for_each(|name| encode::write_str(to, name))?)
        })?,
        (Val::Resource(any), _) => {
            let (kind, number) = number_of(*any, store)?;
            encode::write_ext_meta(to, 4, kind)?;
            to.extend(number.to_be_bytes());
        }
        _ => bail!("it has a value of a kind that does not pass this way: a stream, a future or an error context"),
    }
    Ok(())
}

fn write_list<T>(items: &[Val], of: &Type, to: &mut Vec<u8>, store: &mut StoreContextMut<'_, T>) -> Result<()> {
    if matches!(of, Type::U8) {
        encode::write_bin_len(to, length(items.len())?)?;
        to.extend(items.iter().map(|item| if let Val::U8(byte) = item { *byte } else { 0 }));
        return Ok(());
    }
    encode::write_array_len(to, length(items.len())?)?;
    items.iter().try_for_each(|item| write(item, of, to, store))
}

fn write_payload<T>(
    payload: &Option<Box<Val>>,
    of: Option<Type>,
    to: &mut Vec<u8>,
    store: &mut StoreContextMut<'_, T>,
) -> Result<()> {
    match (payload, of) {
        (Some(payload), Some(of)) => write(payload, &of, to, store),
        _ => Ok(()),
    }
}

fn write_result<T>(
    kind: i8,
    payload: &Option<Box<Val>>,
    of: Option<Type>,
    to: &mut Vec<u8>,
    store: &mut StoreContextMut<'_, T>,
) -> Result<()> {
    extension(to, kind, |to| match payload {
        Some(_) => write_payload(payload, of, to, store),
        None => Ok(encode::write_nil(to)?),
    })
}

/// What is in an extension has its length before it.
fn extension(to: &mut Vec<u8>, kind: i8, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    let mut inner = Vec::new();
    write(&mut inner)?;
    encode::write_ext_meta(to, length(inner.len())?, kind)?;
    to.extend(inner);
    Ok(())
}

fn integer(to: &mut Vec<u8>, number: i64) -> Result<()> {
    encode::write_sint(to, number)?;
    Ok(())
}

fn natural(to: &mut Vec<u8>, number: u64) -> Result<()> {
    encode::write_uint(to, number)?;
    Ok(())
}

fn length(size: usize) -> Result<u32> {
    u32::try_from(size).map_err(|_| format_err!("it has too many parts"))
}

fn number_of<T>(any: ResourceAny, store: &mut StoreContextMut<'_, T>) -> Result<(i8, u32)> {
    let resource = ResourceDynamic::try_from_resource_any(any, store)?;
    Ok((if resource.owned() { ext::OWN } else { ext::BORROW }, resource.rep()))
}

/// A value as MessagePack has it, as far as its first part.
#[derive(Debug)]
enum Item<'a> {
    Nil,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Array(usize),
    Map(usize),
    Extension(i8, &'a [u8]),
}

/// Read what is answered, of MessagePack.
pub struct Reader<'a> {
    pub data: &'a [u8],
    /// Whose objects there are in it.
    pub from: &'a Arc<Guest>,
}

impl<'a> Reader<'a> {
    /// :raises: it is no value of this type; the message says what it is not
    pub fn read<T: Send + 'static>(&mut self, of: &Type, store: &mut StoreContextMut<'_, T>) -> Result<Val> {
        if let Type::Option(option) = of {
            if self.data.first() == Some(&Marker::Null.to_u8()) {
                self.item()?;
                return Ok(Val::Option(None));
            }
            return Ok(Val::Option(Some(Box::new(self.read(&option.ty(), store)?))));
        }
        if let Type::Result(result) = of {
            return self.read_result(result, store);
        }
        Ok(match (of, self.item()?) {
            (Type::Bool, Item::Bool(it)) => Val::Bool(it),
            (Type::S8, Item::Int(it)) => Val::S8(narrow(it)?),
            (Type::U8, Item::Int(it)) => Val::U8(narrow(it)?),
            (Type::S16, Item::Int(it)) => Val::S16(narrow(it)?),
            (Type::U16, Item::Int(it)) => Val::U16(narrow(it)?),
            (Type::S32, Item::Int(it)) => Val::S32(narrow(it)?),
            (Type::U32, Item::Int(it)) => Val::U32(narrow(it)?),
            (Type::S64, Item::Int(it)) => Val::S64(narrow(it)?),
            (Type::U64, Item::Int(it)) => Val::U64(narrow(it)?),
            (Type::Float32, Item::Float(it)) => Val::Float32(it as f32),
            (Type::Float32, Item::Int(it)) => Val::Float32(it as f32),
            (Type::Float64, Item::Float(it)) => Val::Float64(it),
            (Type::Float64, Item::Int(it)) => Val::Float64(it as f64),
            (Type::Char, Item::Text(it)) => Val::Char(single(it)?),
            (Type::String, Item::Text(it)) => Val::String(it.into()),
            (Type::Enum(of), Item::Text(it)) => Val::Enum(known(of.names(), it)?),
            (Type::List(of), Item::Bytes(it)) if matches!(of.ty(), Type::U8) => Val::List(bytes(it)),
            (Type::List(of), Item::Array(size)) => Val::List(self.items(size, &of.ty(), store)?),
            (Type::FixedLengthList(of), Item::Bytes(it)) if matches!(of.ty(), Type::U8) => {
                Val::FixedLengthList(bytes(it))
            }
            (Type::FixedLengthList(of), Item::Array(size)) => {
                Val::FixedLengthList(self.items(size, &of.ty(), store)?)
            }
            (Type::Map(of), Item::Map(size)) => {
                let (key, value) = (of.key(), of.value());
                let pairs = (0..size).map(|_| Ok((self.read(&key, store)?, self.read(&value, store)?)));
                Val::Map(pairs.collect::<Result<_>>()?)
            }
            (Type::Record(of), Item::Map(size)) => self.record(of, size, store)?,
            (Type::Tuple(of), Item::Array(size)) => {
                if size != of.types().len() {
                    bail!("it has {size} values where a tuple of {} is wanted", of.types().len());
                }
                Val::Tuple(of.types().map(|of| self.read(&of, store)).collect::<Result<_>>()?)
            }
            (Type::Variant(of), Item::Extension(ext::CASE, inner)) => self.within(inner).case(of, store)?,
            (Type::Flags(of), Item::Array(size)) => {
                let names = (0..size).map(|_| match self.item()? {
                    Item::Text(it) => known(of.names(), it),
                    other => Err(unlike("the name of a flag", &other)),
                });
                Val::Flags(names.collect::<Result<_>>()?)
            }
            (Type::Own(of), Item::Extension(ext::OWN, inner)) => resource(of, inner, store)?,
            (Type::Stream(of), Item::Extension(ext::STREAM, inner)) => {
                streams::stream(of.ty(), self.from, object(inner)?, store)?
            }
            (Type::Future(of), Item::Extension(ext::FUTURE, inner)) => {
                streams::future(of.ty(), self.from, object(inner)?, store)?
            }
            (Type::ErrorContext, _) => bail!("it gives an error context, which does not pass"),
            (_, item) => return Err(unlike(name(of), &item)),
        })
    }

    fn within(&self, data: &'a [u8]) -> Self {
        Self { data, from: self.from }
    }

    /// The items of a list.
    pub fn list<T: Send + 'static>(&mut self, of: &Type, store: &mut StoreContextMut<'_, T>) -> Result<Vec<Val>> {
        match self.item()? {
            Item::Array(size) => self.items(size, of, store),
            other => Err(unlike("a list", &other)),
        }
    }

    /// Those of a list of bytes.
    pub fn bytes(&mut self) -> Result<Vec<u8>> {
        match self.item()? {
            Item::Bytes(it) => Ok(it.into()),
            Item::Array(size) => (0..size).map(|_| self.byte()).collect(),
            other => Err(unlike("bytes", &other)),
        }
    }

    fn byte(&mut self) -> Result<u8> {
        match self.item()? {
            Item::Int(it) => narrow(it),
            other => Err(unlike("a whole number", &other)),
        }
    }

    /// What is no error is the result, marked as such or not.
    fn read_result<T: Send + 'static>(
        &mut self,
        of: &types::ResultType,
        store: &mut StoreContextMut<'_, T>,
    ) -> Result<Val> {
        let before = self.data;
        let (ok, mut inner) = match self.item()? {
            Item::Extension(ext::OK, inner) => (true, self.within(inner)),
            Item::Extension(ext::ERR, inner) => (false, self.within(inner)),
            _ => {
                self.data = before;
                let start = self.data;
                self.skip()?;
                (true, self.within(&start[..start.len() - self.data.len()]))
            }
        };
        let payload = inner.payload(if ok { of.ok() } else { of.err() }, store)?;
        Ok(Val::Result(if ok { Ok(payload) } else { Err(payload) }))
    }

    fn payload<T: Send + 'static>(
        &mut self,
        of: Option<Type>,
        store: &mut StoreContextMut<'_, T>,
    ) -> Result<Option<Box<Val>>> {
        of.map(|of| Ok(Box::new(self.read(&of, store)?))).transpose()
    }

    fn items<T: Send + 'static>(
        &mut self,
        size: usize,
        of: &Type,
        store: &mut StoreContextMut<'_, T>,
    ) -> Result<Vec<Val>> {
        (0..size).map(|_| self.read(of, store)).collect()
    }

    fn record<T: Send + 'static>(
        &mut self,
        of: &types::Record,
        size: usize,
        store: &mut StoreContextMut<'_, T>,
    ) -> Result<Val> {
        let mut found: Vec<Option<Val>> = of.fields().map(|_| None).collect();
        for _ in 0..size {
            let Item::Text(name) = self.item()? else { bail!("a record has fields with names") };
            match of.fields().position(|field| field.name == name) {
                Some(place) => {
                    let kind = of.fields().nth(place).map(|field| field.ty);
                    found[place] = kind.map(|kind| self.read(&kind, store)).transpose()?;
                }
                None => self.skip()?,
            }
        }
        let fields = of.fields().zip(found).map(|(field, value)| match value {
            Some(value) => Ok((field.name.to_string(), value)),
            None => Err(format_err!("the record has no {}", field.name)),
        });
        Ok(Val::Record(fields.collect::<Result<_>>()?))
    }

    fn case<T: Send + 'static>(&mut self, of: &types::Variant, store: &mut StoreContextMut<'_, T>) -> Result<Val> {
        let (Item::Array(size @ 1..), Item::Text(name)) = (self.item()?, self.item()?) else {
            bail!("a case has a name");
        };
        let Some(case) = of.cases().find(|case| case.name == name) else { bail!("there is no case {name}") };
        if case.ty.is_some() && size < 2 {
            bail!("the case {name} has a payload");
        }
        Ok(Val::Variant(name.into(), self.payload(case.ty, store)?))
    }

    /// Go over a value, whatever is in it.
    fn skip(&mut self) -> Result<()> {
        let mut left = 1usize;
        while left > 0 {
            left -= 1;
            left += match self.item()? {
                Item::Array(size) => size,
                Item::Map(size) => 2 * size,
                _ => 0,
            };
        }
        Ok(())
    }

    fn item(&mut self) -> Result<Item<'a>> {
        let marker = Marker::from_u8(self.number::<1>()?[0]);
        Ok(match marker {
            Marker::Null => Item::Nil,
            Marker::True => Item::Bool(true),
            Marker::False => Item::Bool(false),
            Marker::FixPos(it) => Item::Int(it.into()),
            Marker::FixNeg(it) => Item::Int(it.into()),
            Marker::U8 => Item::Int(u8::from_be_bytes(self.number()?).into()),
            Marker::U16 => Item::Int(u16::from_be_bytes(self.number()?).into()),
            Marker::U32 => Item::Int(u32::from_be_bytes(self.number()?).into()),
            Marker::U64 => Item::Int(u64::from_be_bytes(self.number()?).into()),
            Marker::I8 => Item::Int(i8::from_be_bytes(self.number()?).into()),
            Marker::I16 => Item::Int(i16::from_be_bytes(self.number()?).into()),
            Marker::I32 => Item::Int(i32::from_be_bytes(self.number()?).into()),
            Marker::I64 => Item::Int(i64::from_be_bytes(self.number()?).into()),
            Marker::F32 => Item::Float(f32::from_be_bytes(self.number()?).into()),
            Marker::F64 => Item::Float(f64::from_be_bytes(self.number()?)),
            Marker::FixStr(size) => self.text(size.into())?,
            Marker::Str8 => self.sized1().and_then(|size| self.text(size))?,
            Marker::Str16 => self.sized2().and_then(|size| self.text(size))?,
            Marker::Str32 => self.sized4().and_then(|size| self.text(size))?,
            Marker::Bin8 => Item::Bytes(self.sized1().and_then(|size| self.take(size))?),
            Marker::Bin16 => Item::Bytes(self.sized2().and_then(|size| self.take(size))?),
            Marker::Bin32 => Item::Bytes(self.sized4().and_then(|size| self.take(size))?),
            Marker::FixArray(size) => Item::Array(size.into()),
            Marker::Array16 => Item::Array(self.sized2()?),
            Marker::Array32 => Item::Array(self.sized4()?),
            Marker::FixMap(size) => Item::Map(size.into()),
            Marker::Map16 => Item::Map(self.sized2()?),
            Marker::Map32 => Item::Map(self.sized4()?),
            Marker::FixExt1 => self.extension(1)?,
            Marker::FixExt2 => self.extension(2)?,
            Marker::FixExt4 => self.extension(4)?,
            Marker::FixExt8 => self.extension(8)?,
            Marker::FixExt16 => self.extension(16)?,
            Marker::Ext8 => self.sized1().and_then(|size| self.extension(size))?,
            Marker::Ext16 => self.sized2().and_then(|size| self.extension(size))?,
            Marker::Ext32 => self.sized4().and_then(|size| self.extension(size))?,
            Marker::Reserved => bail!("it is no MessagePack"),
        })
    }

    fn extension(&mut self, size: usize) -> Result<Item<'a>> {
        Ok(Item::Extension(i8::from_be_bytes(self.number()?), self.take(size)?))
    }

    fn text(&mut self, size: usize) -> Result<Item<'a>> {
        Ok(Item::Text(str::from_utf8(self.take(size)?).map_err(|_| format_err!("a text is no UTF-8"))?))
    }

    fn sized1(&mut self) -> Result<usize> {
        Ok(u8::from_be_bytes(self.number()?).into())
    }

    fn sized2(&mut self) -> Result<usize> {
        Ok(u16::from_be_bytes(self.number()?).into())
    }

    fn sized4(&mut self) -> Result<usize> {
        Ok(u32::from_be_bytes(self.number()?) as usize)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (number, rest) = self.data.split_first_chunk::<N>().ok_or_else(|| format_err!("it breaks off"))?;
        self.data = rest;
        Ok(*number)
    }

    fn take(&mut self, size: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.data.split_at_checked(size).ok_or_else(|| format_err!("it breaks off"))?;
        self.data = rest;
        Ok(taken)
    }
}

fn bytes(data: &[u8]) -> Vec<Val> {
    data.iter().map(|byte| Val::U8(*byte)).collect()
}

fn narrow<N: TryFrom<i128>>(number: i128) -> Result<N> {
    N::try_from(number).map_err(|_| format_err!("the number {number} is out of its type's range"))
}

fn single(text: &str) -> Result<char> {
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) => Ok(letter),
        _ => Err(format_err!("a text is there where one character is wanted")),
    }
}

fn known<'n>(mut names: impl Iterator<Item = &'n str>, name: &str) -> Result<String> {
    names.find(|it| *it == name).map(str::to_string).ok_or_else(|| format_err!("there is no {name}"))
}

fn object(inner: &[u8]) -> Result<u32> {
    Ok(u32::from_be_bytes(inner.try_into().map_err(|_| format_err!("an object is a number"))?))
}

fn resource<T>(of: &ResourceType, inner: &[u8], store: &mut StoreContextMut<'_, T>) -> Result<Val> {
    let number = object(inner)?;
    // The type does not say which it is, and there are few of them.
    let kind = (0..MOST_RESOURCES).find(|kind| ResourceType::host_dynamic(*kind) == *of);
    let kind = kind.ok_or_else(|| format_err!("a resource is there where one of another interface is wanted"))?;
    Ok(Val::Resource(ResourceDynamic::new_own(number, kind).try_into_resource_any(store)?))
}

/// Of one component.
pub const MOST_RESOURCES: u32 = 256;

fn unlike(wanted: &str, found: &Item<'_>) -> wasmtime::Error {
    let found = match found {
        Item::Nil => "nothing",
        Item::Bool(_) => "a boolean",
        Item::Int(_) => "a whole number",
        Item::Float(_) => "a number",
        Item::Text(_) => "a text",
        Item::Bytes(_) => "bytes",
        Item::Array(_) => "a list",
        Item::Map(_) => "a record",
        Item::Extension(ext::CASE, _) => "a case",
        Item::Extension(ext::OK | ext::ERR, _) => "a result",
        Item::Extension(ext::STREAM, _) => "a stream",
        Item::Extension(ext::FUTURE, _) => "a future",
        Item::Extension(..) => "an object",
    };
    format_err!("{found} is there where {wanted} is wanted")
}

fn name(of: &Type) -> &'static str {
    match of {
        Type::Bool => "a boolean",
        Type::S8 | Type::U8 | Type::S16 | Type::U16 | Type::S32 | Type::U32 | Type::S64 | Type::U64 => "a whole number",
        Type::Float32 | Type::Float64 => "a number",
        Type::Char => "a character",
        Type::String => "a text",
        Type::List(_) | Type::FixedLengthList(_) => "a list",
        Type::Map(_) => "a map",
        Type::Record(_) => "a record",
        Type::Tuple(_) => "a tuple",
        Type::Variant(_) => "a case",
        Type::Enum(_) => "the name of a case",
        Type::Flags(_) => "a set of flags",
        Type::Own(_) | Type::Borrow(_) => "an object",
        Type::Stream(_) => "a stream",
        Type::Future(_) => "a future",
        Type::Option(_) | Type::Result(_) | Type::ErrorContext => "another value",
    }
}
