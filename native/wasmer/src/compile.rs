//! Compiling, and what is told of a module before it is run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use wasmer::sys::{Cranelift, EngineBuilder};
use wasmer::{AsStoreRef, CompileError, Engine, Extern, ExternType, Imports, Module, Store};
use wasmer_wasix::{WasiEnv, WasiFunctionEnv, WasiVersion, generate_import_object_from_env};

use crate::descriptors::Descriptors;
use crate::runtime::{Host, Tasks};

/// What is noted when a module is compiled, since an app's start is no time for asking.
#[derive(Serialize)]
pub struct Facts {
    /// Why it cannot run here, for want of what it imports.
    problem: Option<String>,
    /// Each export, with why it is no entry.
    exports: BTreeMap<String, Option<&'static str>>,
}

pub enum Failure {
    /// It is no valid module: the engine's own reason.
    Invalid(String),
    Engine(String),
}

/// The same wherever it is made, as artefacts are tied to it. They are ELF files, which are mapped, not read.
pub fn engine() -> Engine {
    let mut compiler = Cranelift::default();
    compiler.experimental_artifact(true);
    EngineBuilder::new(compiler).engine().into()
}

/// Compile a binary module into a file.
pub fn compile(engine: &Engine, wasm: &[u8], artifact: &Path) -> Result<Facts, Failure> {
    let module = Module::new(engine, wasm).map_err(|error| match error {
        CompileError::Validate(reason) => Failure::Invalid(reason),
        CompileError::Wasm(error) => Failure::Invalid(error.to_string()),
        other => Failure::Engine(other.to_string()),
    })?;
    let compiled = module.serialize().map_err(|error| Failure::Engine(error.to_string()))?;
    fs::write(artifact, compiled).map_err(|error| Failure::Engine(format!("{}: {error}", artifact.display())))?;
    let problem = problem(engine, &module).map_err(Failure::Engine)?;
    Ok(Facts { problem, exports: exports(&module) })
}

fn exports(module: &Module) -> BTreeMap<String, Option<&'static str>> {
    let reason = |kind: &ExternType| match kind {
        ExternType::Function(kind) if kind.params().is_empty() && kind.results().is_empty() => None,
        ExternType::Function(_) => Some("takes parameters or gives results; an entry does neither"),
        _ => Some("is not a function"),
    };
    module.exports().map(|export| (export.name().to_owned(), reason(export.ty()))).collect()
}

fn problem(engine: &Engine, module: &Module) -> Result<Option<String>, String> {
    if module.custom_sections("dylink.0").next().is_some() {
        return Ok(None); // linked when it starts, with what else there is then
    }
    let mut store = Store::new(engine.clone());
    let ctx = WasiEnv::builder("")
        .runtime(Arc::new(Host::new(engine.clone(), Tasks::default(), Descriptors::default(), false)))
        .finalize(&mut store)
        .map_err(|error| error.to_string())?;
    let given = everything(&mut store, &ctx);
    for import in module.imports() {
        let (namespace, name) = (import.module(), import.name());
        match (import.ty(), given.get_export(namespace, name)) {
            (ExternType::Memory(_), None) if (namespace, name) == ("env", "memory") => (),
            (_, None) => {
                return Ok(Some(format!(
                    "the module imports {namespace}.{name}, which is neither WASI preview 1 nor WASIX"
                )));
            }
            (wanted, Some(found)) if !matches(&found, wanted, &store) => {
                return Ok(Some(format!("the module does not link: its import {namespace}.{name} is of another type")));
            }
            _ => (),
        }
    }
    Ok(None)
}

/// All that guests may import, of whatever version, side by side.
fn everything(store: &mut Store, ctx: &WasiFunctionEnv) -> Imports {
    let versions = [WasiVersion::Snapshot0, WasiVersion::Snapshot1, WasiVersion::Wasix32v1, WasiVersion::Wasix64v1];
    let mut all = Imports::new();
    for version in versions {
        all.extend(&generate_import_object_from_env(store, &ctx.env, version));
    }
    all
}

fn matches(found: &Extern, wanted: &ExternType, store: &impl AsStoreRef) -> bool {
    match (found.ty(store), wanted) {
        (ExternType::Function(found), ExternType::Function(wanted)) => found == *wanted,
        _ => false,
    }
}
