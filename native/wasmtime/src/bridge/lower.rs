//! Items of streams and futures whose types are known only when a program is there. The crate takes items of Rust's types,
//! each of which says how it is lowered: here it is one for all, lowered by the type that the guest's end has. What it
//! does is what the crate does with values that functions return, as the canonical ABI has it.

use std::mem::MaybeUninit;

use wasmtime::component::__internal::wasmtime_environ::component::VariantInfo;
use wasmtime::component::__internal::{CanonicalAbiInfo, InstanceType, InterfaceType, LiftContext, LowerContext};
use wasmtime::component::{ComponentType, Lift, Lower, Val};
use wasmtime::{Result, ValRaw, bail, format_err};

/// One item, a value of its stream's type.
pub struct Item(pub Val);

const IN_MEMORY: &str = "items of streams are in memory";

// Safety: nothing is read of what it would be if it was flat, and what is written to memory is within it.
unsafe impl ComponentType for Item {
    type Lower = [ValRaw; 0];

    /// Not what it takes: that is looked up where it is written.
    const ABI: CanonicalAbiInfo = CanonicalAbiInfo::ZERO;

    fn typecheck(_: &InterfaceType, _: &InstanceType<'_>) -> Result<()> {
        Ok(()) // each value is checked when it is written
    }
}

unsafe impl Lower for Item {
    fn linear_lower_to_flat<T>(
        &self,
        _: &mut LowerContext<'_, T>,
        _: InterfaceType,
        _: &mut MaybeUninit<Self::Lower>,
    ) -> Result<()> {
        bail!(IN_MEMORY)
    }

    fn linear_lower_to_memory<T>(&self, to: &mut LowerContext<'_, T>, of: InterfaceType, at: usize) -> Result<()> {
        store(&self.0, to, of, at)
    }

    fn linear_store_list_to_memory<T>(
        to: &mut LowerContext<'_, T>,
        of: InterfaceType,
        at: usize,
        items: &[Self],
    ) -> Result<()> {
        let (size, align) = layout(to, &of);
        let end = size.checked_mul(items.len()).and_then(|it| it.checked_add(at));
        let memory = to.as_slice_mut().len();
        if !at.is_multiple_of(align as usize) || end.is_none_or(|end| end > memory) {
            bail!("what a stream is read into is not in memory");
        }
        store_all(items.iter().map(|item| &item.0), to, of, at)
    }
}

unsafe impl Lift for Item {
    fn linear_lift_from_flat(_: &mut LiftContext<'_>, _: InterfaceType, _: &Self::Lower) -> Result<Self> {
        bail!(IN_MEMORY)
    }

    fn linear_lift_from_memory(_: &mut LiftContext<'_>, _: InterfaceType, _: &[u8]) -> Result<Self> {
        bail!("items are written, and not read")
    }
}

/// The bytes that a value has in memory, and what its address is a multiple of.
fn layout<T>(to: &LowerContext<'_, T>, of: &InterfaceType) -> (usize, u32) {
    let abi = to.types.canonical_abi(of);
    (abi.size32 as usize, abi.align32)
}

fn store_all<'a, T>(
    values: impl Iterator<Item = &'a Val>,
    to: &mut LowerContext<'_, T>,
    of: InterfaceType,
    mut at: usize,
) -> Result<()> {
    let (size, _) = layout(to, &of);
    for value in values {
        store(value, to, of, at)?;
        at += size;
    }
    Ok(())
}

/// Write a value to where there is room for it.
///
/// :raises: it is of another type
fn store<T>(value: &Val, to: &mut LowerContext<'_, T>, of: InterfaceType, at: usize) -> Result<()> {
    let types = to.types;
    match (value, of) {
        (Val::Bool(it), InterfaceType::Bool) => it.linear_lower_to_memory(to, of, at),
        (Val::S8(it), InterfaceType::S8) => it.linear_lower_to_memory(to, of, at),
        (Val::U8(it), InterfaceType::U8) => it.linear_lower_to_memory(to, of, at),
        (Val::S16(it), InterfaceType::S16) => it.linear_lower_to_memory(to, of, at),
        (Val::U16(it), InterfaceType::U16) => it.linear_lower_to_memory(to, of, at),
        (Val::S32(it), InterfaceType::S32) => it.linear_lower_to_memory(to, of, at),
        (Val::U32(it), InterfaceType::U32) => it.linear_lower_to_memory(to, of, at),
        (Val::S64(it), InterfaceType::S64) => it.linear_lower_to_memory(to, of, at),
        (Val::U64(it), InterfaceType::U64) => it.linear_lower_to_memory(to, of, at),
        (Val::Float32(it), InterfaceType::Float32) => it.linear_lower_to_memory(to, of, at),
        (Val::Float64(it), InterfaceType::Float64) => it.linear_lower_to_memory(to, of, at),
        (Val::Char(it), InterfaceType::Char) => it.linear_lower_to_memory(to, of, at),
        (Val::String(it), InterfaceType::String) => it.linear_lower_to_memory(to, of, at),
        (Val::Resource(it), InterfaceType::Own(_) | InterfaceType::Borrow(_)) => it.linear_lower_to_memory(to, of, at),
        (Val::Stream(it), InterfaceType::Stream(_)) => it.linear_lower_to_memory(to, of, at),
        (Val::Future(it), InterfaceType::Future(_)) => it.linear_lower_to_memory(to, of, at),
        (Val::List(items), InterfaceType::List(list)) => {
            let of = types[list].element;
            let (size, align) = layout(to, &of);
            let start = room(to, align, size, items.len(), at)?;
            store_all(items.iter(), to, of, start)
        }
        (Val::Map(pairs), InterfaceType::Map(map)) => {
            let map = &types[map];
            let (size, align) = (map.entry_abi.size32 as usize, map.entry_abi.align32);
            let mut start = room(to, align, size, pairs.len(), at)?;
            for (key, value) in pairs {
                store(key, to, map.key, start)?;
                store(value, to, map.value, start + map.value_offset32 as usize)?;
                start += size;
            }
            Ok(())
        }
        (Val::FixedLengthList(items), InterfaceType::FixedLengthList(list))
            if items.len() == types[list].size as usize =>
        {
            store_all(items.iter(), to, types[list].element, at)
        }
        (Val::Record(fields), InterfaceType::Record(record)) if fields.len() == types[record].fields.len() => {
            let of = types[record].fields.iter().map(|field| field.ty);
            store_fields(fields.iter().map(|(_, value)| value).zip(of), to, at)
        }
        (Val::Tuple(items), InterfaceType::Tuple(tuple)) if items.len() == types[tuple].types.len() => {
            store_fields(items.iter().zip(types[tuple].types.iter().copied()), to, at)
        }
        (Val::Variant(name, payload), InterfaceType::Variant(variant)) => {
            let of = &types[variant];
            let case = of.cases.get_full(name).ok_or_else(|| format_err!("there is no case {name}"))?;
            store_case(case.0, &of.info, payload, *case.2, to, at)
        }
        (Val::Enum(name), InterfaceType::Enum(enumeration)) => {
            let of = &types[enumeration];
            let case = of.names.get_index_of(name).ok_or_else(|| format_err!("there is no {name}"))?;
            store_case(case, &of.info, &None, None, to, at)
        }
        (Val::Option(payload), InterfaceType::Option(option)) => {
            let of = &types[option];
            store_case(payload.is_some().into(), &of.info, payload, payload.as_ref().map(|_| of.ty), to, at)
        }
        (Val::Result(Ok(payload)), InterfaceType::Result(result)) => {
            store_case(0, &types[result].info, payload, types[result].ok, to, at)
        }
        (Val::Result(Err(payload)), InterfaceType::Result(result)) => {
            store_case(1, &types[result].info, payload, types[result].err, to, at)
        }
        (Val::Flags(names), InterfaceType::Flags(flags)) => {
            let all = &types[flags].names;
            let mut words = vec![0u32; all.len().div_ceil(32)];
            for name in names {
                let flag = all.get_index_of(name).ok_or_else(|| format_err!("there is no {name}"))?;
                words[flag / 32] |= 1 << (flag % 32);
            }
            let size = types[flags].abi.size32.min(4); // more are words
            words.iter().enumerate().try_for_each(|(word, bits)| store_bits(*bits, size, to, at + 4 * word))
        }
        _ => bail!("a value is of another type than what is read of its stream or future"),
    }
}

/// Have the guest make room for a list, whose address and length are written; returns where it is.
fn room<T>(to: &mut LowerContext<'_, T>, align: u32, size: usize, count: usize, at: usize) -> Result<usize> {
    let bytes = size.checked_mul(count).ok_or_else(|| format_err!("it has too many parts"))?;
    let start = to.realloc(0, 0, align, bytes)?;
    u32::try_from(start)?.linear_lower_to_memory(to, InterfaceType::U32, at)?;
    u32::try_from(count)?.linear_lower_to_memory(to, InterfaceType::U32, at + 4)?;
    Ok(start)
}

fn store_fields<'a, T>(
    fields: impl Iterator<Item = (&'a Val, InterfaceType)>,
    to: &mut LowerContext<'_, T>,
    mut at: usize,
) -> Result<()> {
    for (value, of) in fields {
        let field = to.types.canonical_abi(&of).next_field32_size(&mut at);
        store(value, to, of, field)?;
    }
    Ok(())
}

/// Write a number of 1, 2 or 4 bytes.
fn store_bits<T>(bits: u32, size: u32, to: &mut LowerContext<'_, T>, at: usize) -> Result<()> {
    match size {
        1 => (bits as u8).linear_lower_to_memory(to, InterfaceType::U8, at),
        2 => (bits as u16).linear_lower_to_memory(to, InterfaceType::U16, at),
        _ => bits.linear_lower_to_memory(to, InterfaceType::U32, at),
    }
}

fn store_case<T>(
    case: usize,
    info: &VariantInfo,
    payload: &Option<Box<Val>>,
    of: Option<InterfaceType>,
    to: &mut LowerContext<'_, T>,
    at: usize,
) -> Result<()> {
    store_bits(case as u32, info.size.into(), to, at)?;
    match (payload, of) {
        (Some(payload), Some(of)) => store(payload, to, of, at + info.payload_offset32 as usize),
        (None, None) => Ok(()),
        _ => bail!("a case has another payload than what is read of its stream or future"),
    }
}
