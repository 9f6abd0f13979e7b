//! What a dependency is given in the place of an interface that it does not inherit: a component made for it, of the
//! types that it has, in the version that it has. As Spin's, it fails in the interface's own words: what returns an error
//! returns the one that says so, lists are empty, and nothing can be opened. What can say none of that traps.

use anyhow::{Context, Result, bail};
use wasm_encoder::{
    CodeSection, ConstExpr, DataSection, EntityType, ExportKind, ExportSection, FunctionSection, GlobalSection,
    GlobalType, ImportSection, InstructionSink, MemArg, MemArgTarget, MemorySection, MemoryType, Module, TypeSection,
    ValType,
};
use wit_component::{ComponentEncoder, DecodedWasm, StringEncoding, decode, embed_component_metadata};
use wit_parser::abi::{AbiVariant, FlatTypes, WasmType};
use wit_parser::{
    Function, FunctionKind, Handle, Int, InterfaceId, LiftLowerAbi, ManglingAndAbi, Resolve, ResourceIntrinsic,
    SizeAlign, Type, TypeDefKind, TypeId, TypeOwner, WasmExport, WasmExportKind, WasmImport, WorldId, WorldItem,
    WorldKey,
};

use crate::compose::{imports, plugged, unversioned};

/// How errors are named that say that something is not permitted, or not there: the first of these that there is.
const ERRORS: [&str; 9] = [
    "access-denied",
    "destination-not-allowed",
    "model-not-supported",
    "undefined",
    "internal-error",
    "io",
    "other",
    "other-error",
    "error",
];
/// How functions are named that are called as they are declared, in the same thread.
const NAMES: ManglingAndAbi = ManglingAndAbi::Legacy(LiftLowerAbi::Sync);
const PAGE: u64 = 1 << 16;
/// Where constants begin: no pointer is null.
const FIRST: usize = 16;

/// Returns a component without access to those interfaces, named without versions.
pub fn without(component: Vec<u8>, denied: &[String]) -> Result<Vec<u8>> {
    if denied_of(&component, denied)?.is_empty() {
        return Ok(component);
    }
    let DecodedWasm::Component(mut resolve, world) = decode(&component)? else {
        bail!("it is a package of interfaces, and no component");
    };
    let names = of_world(&resolve, world, denied);
    let names_of_all: Vec<String> = names.iter().map(|(name, _)| name.clone()).collect();
    turn(&mut resolve, world, &names)?;
    let mut module = Denial::of(&resolve)?.module(&resolve, world)?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)?;
    let denial = ComponentEncoder::default().validate(true).module(&module)?.encode()?;
    let confined = plugged(component, denial, &names_of_all)?;
    let left = denied_of(&confined, denied)?;
    if !left.is_empty() {
        bail!("what it imports as {} cannot be taken from it", left.join(", "));
    }
    Ok(confined)
}

fn denied_of(component: &[u8], denied: &[String]) -> Result<Vec<String>> {
    let is_denied = |name: &String| denied.iter().any(|one| one == unversioned(name));
    Ok(imports(component)?.into_iter().filter(is_denied).collect())
}

/// The imports that are denied.
fn of_world(resolve: &Resolve, world: WorldId, denied: &[String]) -> Vec<(String, InterfaceId)> {
    let named = |(key, item): (&WorldKey, &WorldItem)| match item {
        WorldItem::Interface { id, .. } => Some((resolve.name_world_key(key), *id)),
        _ => None,
    };
    let is_denied = |(name, _): &(String, InterfaceId)| denied.iter().any(|one| one == unversioned(name));
    resolve.worlds[world].imports.iter().filter_map(named).filter(is_denied).collect()
}

/// Make a world the other side of some of its imports: it exports them, and imports what they need of others.
fn turn(resolve: &mut Resolve, world: WorldId, names: &[(String, InterfaceId)]) -> Result<()> {
    let exported: Vec<InterfaceId> = names.iter().map(|(_, id)| *id).collect();
    let mut needed = exported.clone();
    let mut next = 0;
    while let Some(&id) = needed.get(next) {
        for other in uses(resolve, id) {
            if !needed.contains(&other) {
                needed.push(other);
            } else if exported.contains(&other) && !exported.contains(&id) {
                bail!("{} is denied, and used by an interface that is not", resolve.id_of(other).unwrap_or_default());
            }
        }
        next += 1;
    }
    let kept = &mut resolve.worlds[world];
    let imports = std::mem::take(&mut kept.imports);
    kept.exports.clear();
    for (key, item) in imports {
        let WorldItem::Interface { id, .. } = item else { continue };
        if exported.contains(&id) {
            kept.exports.insert(key, item);
        } else if needed.contains(&id) {
            kept.imports.insert(key, item);
        }
    }
    Ok(())
}

/// The interfaces that the types of one are of.
fn uses(resolve: &Resolve, interface: InterfaceId) -> Vec<InterfaceId> {
    let types = resolve.interfaces[interface].types.values();
    types.filter_map(|&id| owner(resolve, aliased(resolve, id)?)).filter(|&other| other != interface).collect()
}

/// What a type is another name of.
fn aliased(resolve: &Resolve, id: TypeId) -> Option<TypeId> {
    match resolve.types[id].kind {
        TypeDefKind::Type(Type::Id(other)) => Some(other),
        _ => None,
    }
}

fn owner(resolve: &Resolve, id: TypeId) -> Option<InterfaceId> {
    match resolve.types[id].owner {
        TypeOwner::Interface(owner) => Some(owner),
        _ => None,
    }
}

/// What a type is in the end.
fn resolved(resolve: &Resolve, mut id: TypeId) -> TypeId {
    while let Some(other) = aliased(resolve, id) {
        id = other;
    }
    id
}

fn kind<'a>(resolve: &'a Resolve, ty: &Type) -> Option<&'a TypeDefKind> {
    match ty {
        Type::Id(id) => Some(&resolve.types[resolved(resolve, *id)].kind),
        _ => None,
    }
}

/// What a function does.
enum Answer {
    Nothing,
    /// Returns a number.
    Number(i32),
    /// Returns a pointer to a constant.
    Constant {
        at: usize,
        name_at: Option<usize>,
    },
    /// Returns a new resource.
    New(u32),
    Trap,
}

/// The core module: functions without a state, and their constants.
struct Denial {
    sizes: SizeAlign,
    constants: Vec<u8>,
    types: TypeSection,
    imports: ImportSection,
    imported: Vec<(String, String)>,
    functions: FunctionSection,
    exports: ExportSection,
    code: CodeSection,
}

impl Denial {
    fn of(resolve: &Resolve) -> Result<Self> {
        let mut sizes = SizeAlign::default();
        sizes.fill(resolve)?;
        Ok(Denial {
            sizes,
            constants: Vec::new(),
            types: TypeSection::new(),
            imports: ImportSection::new(),
            imported: Vec::new(),
            functions: FunctionSection::new(),
            exports: ExportSection::new(),
            code: CodeSection::new(),
        })
    }

    fn module(mut self, resolve: &Resolve, world: WorldId) -> Result<Vec<u8>> {
        let exports: Vec<(WorldKey, InterfaceId)> = interfaces(resolve, world);
        let all =
            || exports.iter().flat_map(|(key, id)| resolve.interfaces[*id].functions.values().map(move |f| (key, f)));
        let mut planned = Vec::new(); // imports are numbered before functions are
        for (key, function) in all() {
            let answer = self.answer(resolve, key, function);
            planned.push((answer, self.drops(resolve, world, function)));
        }
        for ((key, function), (answer, drops)) in all().zip(planned) {
            self.function(resolve, key, function, answer, &drops)?;
        }
        Ok(self.finished())
    }

    fn import(&mut self, resolve: &Resolve, interface: &WorldKey, resource: TypeId, does: ResourceIntrinsic) -> u32 {
        let makes = matches!(does, ResourceIntrinsic::ExportedNew);
        let import = WasmImport::ResourceIntrinsic { interface: Some(interface), resource, intrinsic: does };
        let name = resolve.wasm_import_name(NAMES, import);
        if let Some(number) = self.imported.iter().position(|one| *one == name) {
            return number as u32;
        }
        let results = if makes { vec![ValType::I32] } else { Vec::new() };
        self.types.ty().function([ValType::I32], results);
        self.imports.import(&name.0, &name.1, EntityType::Function(self.types.len() - 1));
        self.imported.push(name);
        self.imported.len() as u32 - 1
    }

    fn answer(&mut self, resolve: &Resolve, interface: &WorldKey, function: &Function) -> Answer {
        use FunctionKind::*;

        if let Constructor(resource) = function.kind {
            return Answer::New(self.import(resolve, interface, resource, ResourceIntrinsic::ExportedNew));
        }
        let is_made = match function.kind {
            Method(id) | AsyncMethod(id) | MethodGetter(id) | MethodSetter(id) => {
                let WorldKey::Interface(of) = interface else { return Answer::Trap };
                let mut all = resolve.interfaces[*of].functions.values();
                if !all.any(|one| matches!(one.kind, Constructor(made) if made == id)) {
                    return Answer::Trap; // there is none that it could be called with
                }
                true
            }
            _ => false,
        };
        if function.params.iter().any(|param| lends_within(resolve, &param.ty)) {
            return Answer::Trap; // what is lent has to be given back first
        }
        let Some(result) = &function.result else { return Answer::Nothing };
        match kind(resolve, result) {
            Some(TypeDefKind::Result(either)) => {
                if is_made && either.ok.is_none() {
                    return self.zero(result, either.err.is_none()); // what is set for later does not fail
                }
                let Some(error) = either.err else { return Answer::Number(1) };
                let at = self.value(result);
                self.put(at, &[1]);
                let cases = [either.ok.as_ref(), Some(&error)];
                let inside = at + self.sizes.payload_offset(Int::U8, cases).size_wasm32();
                match self.write_error(resolve, interface, inside, &error) {
                    Some(name_at) => Answer::Constant { at, name_at },
                    None => Answer::Trap,
                }
            }
            Some(TypeDefKind::List(_) | TypeDefKind::Option(_)) => self.zero(result, false),
            None if *result == Type::String => self.zero(result, false),
            _ => Answer::Trap,
        }
    }

    /// An empty list, an absent value, a success without one.
    fn zero(&mut self, ty: &Type, is_number: bool) -> Answer {
        if is_number {
            return Answer::Number(0);
        }
        Answer::Constant { at: self.value(ty), name_at: None }
    }

    /// Room for a value, all zeros.
    fn value(&mut self, ty: &Type) -> usize {
        self.room(self.sizes.size(ty).size_wasm32(), self.sizes.align(ty).align_wasm32())
    }

    fn room(&mut self, size: usize, align: usize) -> usize {
        let at = (FIRST + self.constants.len()).next_multiple_of(align);
        self.constants.resize(at - FIRST + size, 0);
        at
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.constants[at - FIRST..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Write the error that says it best.
    ///
    /// :returns: none: there is none; else where the caller's own string goes, if one does
    fn write_error(
        &mut self,
        resolve: &Resolve,
        interface: &WorldKey,
        at: usize,
        error: &Type,
    ) -> Option<Option<usize>> {
        let (tag, cases): (Int, Vec<(&str, Option<Type>)>) = match kind(resolve, error)? {
            TypeDefKind::Enum(one) => (one.tag(), one.cases.iter().map(|case| (case.name.as_str(), None)).collect()),
            TypeDefKind::Variant(one) => {
                (one.tag(), one.cases.iter().map(|case| (case.name.as_str(), case.ty)).collect())
            }
            _ => return None,
        };
        let number = |wanted: &&str| cases.iter().position(|(name, _)| name == wanted);
        let number = ERRORS.iter().find_map(number)?;
        self.put(at, &(number as u32).to_le_bytes()[..tag_size(tag)]);
        let payloads = cases.iter().map(|(_, ty)| ty.as_ref());
        let mut inside = at + self.sizes.payload_offset(tag, payloads).size_wasm32();
        let (name, payload) = &cases[number];
        let Some(payload) = payload else { return Some(None) };
        if let Some(TypeDefKind::Option(text @ Type::String)) = kind(resolve, payload) {
            self.put(inside, &[1]);
            inside += self.sizes.payload_offset(Int::U8, [None, Some(text)]).size_wasm32();
        } else if *payload != Type::String {
            return None;
        }
        if *name == "undefined" {
            return Some(Some(inside));
        }
        let name = resolve.name_world_key(interface);
        let text = format!("\"{}\" is not permitted", unversioned(&name));
        let place = self.room(text.len(), 1);
        self.put(place, text.as_bytes());
        self.put(inside, &(place as u32).to_le_bytes());
        self.put(inside + 4, &(text.len() as u32).to_le_bytes());
        Some(None)
    }

    /// The handles that a function is given and has to give back: where each is among the parameters, whether it is there
    /// only if the one before it is not 0, and what drops it.
    fn drops(&mut self, resolve: &Resolve, world: WorldId, function: &Function) -> Vec<(u32, bool, u32)> {
        let mut found = Vec::new();
        let mut at = 0;
        for param in &function.params {
            let (handle, is_optional) = match kind(resolve, &param.ty) {
                Some(TypeDefKind::Handle(handle)) => (Some(*handle), false),
                Some(TypeDefKind::Option(ty)) => match kind(resolve, ty) {
                    Some(TypeDefKind::Handle(handle)) => (Some(*handle), true),
                    _ => (None, false),
                },
                _ => (None, false),
            };
            if let Some(Handle::Own(id) | Handle::Borrow(id)) = handle {
                let id = resolved(resolve, id);
                let key = owner(resolve, id).map(WorldKey::Interface);
                if let Some(key) = key.filter(|key| resolve.worlds[world].imports.contains_key(key)) {
                    let drop = self.import(resolve, &key, id, ResourceIntrinsic::ImportedDrop);
                    found.push((at + u32::from(is_optional), is_optional, drop));
                }
            }
            at += flat(resolve, &param.ty).len() as u32;
        }
        found
    }

    fn function(
        &mut self,
        resolve: &Resolve,
        interface: &WorldKey,
        function: &Function,
        answer: Answer,
        drops: &[(u32, bool, u32)],
    ) -> Result<()> {
        let signature = resolve.wasm_signature(AbiVariant::GuestExport, function);
        let export = WasmExport::Func { interface: Some(interface), func: function, kind: WasmExportKind::Normal };
        let name = resolve.wasm_export_name(NAMES, export);
        self.types.ty().function(signature.params.iter().map(value_type), signature.results.iter().map(value_type));
        self.functions.function(self.types.len() - 1);
        self.exports.export(&name, ExportKind::Func, self.imported.len() as u32 + self.functions.len() - 1);
        let mut body = wasm_encoder::Function::new([]);
        let mut code = body.instructions();
        let drops = if signature.indirect_params { &[] } else { drops };
        if !matches!(answer, Answer::Trap) {
            for &(at, is_optional, drop) in drops {
                if is_optional {
                    code.local_get(at - 1).if_(wasm_encoder::BlockType::Empty);
                }
                code.local_get(at).call(drop);
                if is_optional {
                    code.end();
                }
            }
        }
        match answer {
            Answer::Trap => _ = code.unreachable(),
            Answer::Nothing => (),
            Answer::Number(number) => _ = code.i32_const(number),
            Answer::New(make) => _ = code.i32_const(0).call(make),
            Answer::Constant { at, name_at } => {
                if let Some(place) = name_at {
                    let name = string_parameter(resolve, function).context("an error names what it is not given")?;
                    store(&mut code, place, name);
                    store(&mut code, place + 4, name + 1);
                }
                code.i32_const(at as i32);
            }
        }
        forget(&mut code);
        code.end();
        self.code.function(&body);
        Ok(())
    }

    /// Add the memory, and what gives out room in it for parameters: it is all free again after each call.
    fn finished(mut self) -> Vec<u8> {
        let end = (FIRST + self.constants.len()).next_multiple_of(16);
        let realloc = self.imported.len() as u32 + self.functions.len();
        self.types.ty().function([ValType::I32; 4], [ValType::I32]);
        self.functions.function(self.types.len() - 1);
        self.exports.export("cabi_realloc", ExportKind::Func, realloc);
        self.exports.export("memory", ExportKind::Memory, 0);
        self.code.function(&giving_room());
        let mut memories = MemorySection::new();
        let minimum = end as u64 / PAGE + 1;
        memories.memory(MemoryType { minimum, maximum: None, memory64: false, shared: false, page_size_log2: None });
        let mut globals = GlobalSection::new();
        for mutable in [true, false] {
            let ty = GlobalType { val_type: ValType::I32, mutable, shared: false };
            globals.global(ty, &ConstExpr::i32_const(end as i32));
        }
        let mut data = DataSection::new();
        data.active(0, &ConstExpr::i32_const(FIRST as i32), self.constants);
        let mut module = Module::new();
        module.section(&self.types).section(&self.imports).section(&self.functions).section(&memories);
        module.section(&globals).section(&self.exports).section(&self.code).section(&data);
        module.finish()
    }
}

fn interfaces(resolve: &Resolve, world: WorldId) -> Vec<(WorldKey, InterfaceId)> {
    let interface = |(key, item): (&WorldKey, &WorldItem)| match item {
        WorldItem::Interface { id, .. } => Some((key.clone(), *id)),
        _ => None,
    };
    resolve.worlds[world].exports.iter().filter_map(interface).collect()
}

/// Whether a parameter has something lent in it, where :meth:`Denial::drops` does not look.
fn lends_within(resolve: &Resolve, ty: &Type) -> bool {
    let is_handle = |ty: &Type| matches!(kind(resolve, ty), Some(TypeDefKind::Handle(_)));
    match kind(resolve, ty) {
        Some(TypeDefKind::Option(inner)) if is_handle(inner) => false,
        Some(TypeDefKind::Handle(_)) => false,
        _ => lends(resolve, ty),
    }
}

fn lends(resolve: &Resolve, ty: &Type) -> bool {
    let any = |mut types: &mut dyn Iterator<Item = &Type>| Iterator::any(&mut types, |ty| lends(resolve, ty));
    match kind(resolve, ty) {
        Some(TypeDefKind::Handle(handle)) => matches!(handle, Handle::Borrow(_)),
        Some(TypeDefKind::Option(ty) | TypeDefKind::List(ty) | TypeDefKind::FixedLengthList(ty, _)) => {
            lends(resolve, ty)
        }
        Some(TypeDefKind::Tuple(tuple)) => any(&mut tuple.types.iter()),
        Some(TypeDefKind::Record(record)) => any(&mut record.fields.iter().map(|field| &field.ty)),
        Some(TypeDefKind::Variant(variant)) => any(&mut variant.cases.iter().filter_map(|case| case.ty.as_ref())),
        Some(TypeDefKind::Result(either)) => any(&mut either.ok.iter().chain(&either.err)),
        Some(TypeDefKind::Map(key, value)) => lends(resolve, key) || lends(resolve, value),
        _ => false,
    }
}

/// Where the first string is among a function's parameters.
fn string_parameter(resolve: &Resolve, function: &Function) -> Option<u32> {
    let before = function.params.iter().take_while(|param| param.ty != Type::String);
    let at: usize = before.map(|param| flat(resolve, &param.ty).len()).sum();
    function.params.iter().any(|param| param.ty == Type::String).then_some(at as u32)
}

fn flat(resolve: &Resolve, ty: &Type) -> Vec<WasmType> {
    let mut room = [WasmType::I32; Resolve::MAX_FLAT_PARAMS + 1];
    let mut types = FlatTypes::new(&mut room);
    resolve.push_flat(ty, &mut types);
    types.to_vec()
}

fn value_type(ty: &WasmType) -> ValType {
    match ty {
        WasmType::I64 | WasmType::PointerOrI64 => ValType::I64,
        WasmType::F32 => ValType::F32,
        WasmType::F64 => ValType::F64,
        WasmType::I32 | WasmType::Pointer | WasmType::Length => ValType::I32,
    }
}

fn tag_size(tag: Int) -> usize {
    match tag {
        Int::U8 => 1,
        Int::U16 => 2,
        Int::U32 | Int::U64 => 4,
    }
}

/// Store a parameter.
fn store(code: &mut InstructionSink<'_>, place: usize, parameter: u32) {
    let where_ = MemArg { offset: 0, align: 2, target: MemArgTarget::Memory(0), ordering: None };
    code.i32_const(place as i32).local_get(parameter).i32_store(where_);
}

/// All that parameters took is free.
fn forget(code: &mut InstructionSink<'_>) {
    code.global_get(1).global_set(0);
}

/// ``cabi_realloc``: nothing is given twice, and the memory grows if it has to.
fn giving_room() -> wasm_encoder::Function {
    const ALIGN: u32 = 2;
    const SIZE: u32 = 3;
    const AT: u32 = 4;
    let mut body = wasm_encoder::Function::new([(1, ValType::I32)]);
    let mut code = body.instructions();
    code.global_get(0).local_get(ALIGN).i32_add().i32_const(1).i32_sub();
    code.i32_const(0).local_get(ALIGN).i32_sub().i32_and().local_tee(AT);
    code.local_get(SIZE).i32_add().global_set(0);
    code.block(wasm_encoder::BlockType::Empty);
    code.global_get(0).memory_size(0).i32_const(16).i32_shl().i32_le_u().br_if(0);
    code.local_get(SIZE).i32_const(16).i32_shr_u().i32_const(1).i32_add().memory_grow(0);
    code.i32_const(-1).i32_ne().br_if(0).unreachable().end();
    code.local_get(AT).end();
    body
}
