//! The compiler: a program's machine code, and what is to be known of it before it starts.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use wasmtime::component::{Component, types};
use wasmtime::{Engine, ExternType, Module};

use crate::abi::Kind;
use crate::bridge::{self, Bridge};
use crate::engine::{self, Flavour};
use crate::spin;

pub enum Failure {
    /// It is no program.
    Invalid(String),
    Engine(String),
}

#[derive(Default, Serialize)]
pub struct Facts {
    /// As in a block.
    kind: u64,
    /// Why it does not run here.
    problem: Option<String>,
    /// Why it is no component of Spin's native host.
    spin: Option<String>,
    /// What it imports, as one, of interfaces that refuse all.
    absent: Vec<String>,
    /// Why a component is no command.
    no_command: Option<String>,
    /// A module's exports, each with why it is no entry.
    #[serde(serialize_with = "in_order")]
    exports: Vec<(String, Option<&'static str>)>,
}

/// An object, whose names are in the order that the module has them in.
fn in_order<S: Serializer>(names: &[(String, Option<&'static str>)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(names.iter().map(|(name, reason)| (name, reason)))
}

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const NO_FUNCTION: &str = "is not a function";
const NO_ENTRY: &str = "takes parameters or gives results; an entry does neither";

/// How interfaces begin that a program is started by: what serves is looked for first.
const STARTS: [(&str, Kind); 4] = [
    ("wasi:http/incoming-handler@0.2.", Kind::Server2),
    ("wasi:http/handler@0.3.", Kind::Server3),
    ("wasi:cli/run@0.2.", Kind::Command2),
    ("wasi:cli/run@0.3.", Kind::Command3),
];
const NO_COMMAND: &str = "exports no wasi:cli/run, so there is nothing to run (Spin runs its own by their /spin.toml)";

/// :param bridged: names of interfaces that it may import, besides those that are here
pub fn compile(wasm: &[u8], bridged: &[String]) -> Result<(Vec<u8>, String), Failure> {
    let (code, facts) = if wasm.starts_with(COMPONENT) {
        component(wasm, bridged)?
    } else {
        module(&compiler(Flavour::COMMANDS)?, wasm).map_err(invalid)?
    };
    Ok((code, serde_json::to_string(&facts).map_err(|error| Failure::Engine(error.to_string()))?))
}

fn compiler(flavour: Flavour) -> Result<Engine, Failure> {
    let mut config = flavour.config();
    config.parallel_compilation(true);
    Engine::new(&config).map_err(|error| Failure::Engine(sentence(&error)))
}

fn invalid(error: wasmtime::Error) -> Failure {
    Failure::Invalid(sentence(&error))
}

fn contains(data: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(data, part).is_some()
}

fn module(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<(Vec<u8>, Facts)> {
    let module = Module::new(engine, wasm)?;
    let problem = engine::modules(engine)?.instantiate_pre(&module).err();
    let facts = Facts {
        problem: problem.map(|error| format!("the module does not link: {}", sentence(&error))),
        exports: module.exports().map(|export| (export.name().to_string(), no_entry(&export.ty()))).collect(),
        ..Facts::default()
    };
    Ok((module.serialize()?, facts))
}

fn no_entry(kind: &ExternType) -> Option<&'static str> {
    match kind {
        ExternType::Func(of) if of.params().len() == 0 && of.results().len() == 0 => None,
        ExternType::Func(_) => Some(NO_ENTRY),
        _ => Some(NO_FUNCTION),
    }
}

/// A component is what it exports. Its bytes have the name, which may stand there for something else.
fn component(wasm: &[u8], bridged: &[String]) -> Result<(Vec<u8>, Facts), Failure> {
    for (prefix, kind) in STARTS {
        if contains(wasm, prefix.as_bytes())
            && let Some(made) = compiled(wasm, kind, Some(prefix), bridged)?
        {
            return Ok(made);
        }
    }
    compiled(wasm, Kind::Command2, None, bridged)?
        .ok_or_else(|| Failure::Invalid("it is none that wasmtime runs".into()))
}

/// :param prefix: of what it is to export; ``None``: it may be none that is run
/// :returns: ``None``: it does not
fn compiled(
    wasm: &[u8],
    kind: Kind,
    prefix: Option<&str>,
    bridged: &[String],
) -> Result<Option<(Vec<u8>, Facts)>, Failure> {
    let flavour = Flavour::of(kind);
    let engine = &compiler(flavour)?;
    let component = match Component::new(engine, wasm) {
        Ok(component) => component,
        Err(_) if prefix.is_some() && !flavour.newer && contains(wasm, b"@0.3.") => return Ok(None), // valid for another
        Err(error) => return Err(invalid(error)),
    };
    let of = component.component_type();
    if prefix.is_some_and(|prefix| !of.exports(engine).any(|(name, _)| name.starts_with(prefix))) {
        return Ok(None);
    }
    let mut linker = flavour.linker(engine).map_err(invalid)?;
    let nowhere = Arc::new(Bridge::new("", None));
    let linked = bridge::link(&mut linker, &component, bridged, &nowhere);
    let facts = Facts {
        kind: kind as u64,
        absent: spin::absent_names(&component),
        spin: spin::problem(kind, &component).map(|error| missing(&of, engine, &error)),
        problem: linked
            .and_then(|()| linker.instantiate_pre(&component).map(|_| ()))
            .err()
            .map(|error| missing(&of, engine, &error)),
        no_command: prefix.is_none().then(|| NO_COMMAND.to_string()),
        ..Facts::default()
    };
    Ok(Some((component.serialize().map_err(invalid)?, facts)))
}

/// Why it does not link: the interface that nobody gives, as it names it.
fn missing(of: &types::Component, engine: &Engine, error: &wasmtime::Error) -> String {
    let chain = error.chain().map(|cause| cause.to_string()).collect::<Vec<_>>();
    let named = of.imports(engine).map(|(name, _)| name.to_string());
    let mentioned = named.filter(|name| chain.iter().any(|cause| cause.contains(&format!("`{name}`")))).last();
    match mentioned {
        Some(name) if name.starts_with("wasi:") => {
            format!("imports {name}, which is not provided: {}", sentence(error))
        }
        Some(name) => format!("imports {name}, which is not provided"),
        None => format!("does not link: {}", sentence(error)),
    }
}

/// The innermost cause, on one line.
fn sentence(error: &wasmtime::Error) -> String {
    line(&error.chain().last().map(|cause| cause.to_string()).unwrap_or_default())
}

fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
