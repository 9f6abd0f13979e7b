//! Functions of WASI that are given to guests in place of WASIX's own, around which they are.
//!
//! * ``fd_fdstat_get``: WASIX says of descriptors 0, 1 and 2 that they are terminals, whatever they are.
//! * ``fd_sync`` and ``fd_datasync``: files are told that it is the guest who wants them on disk.

use std::cell::Cell;

use wasmer::{
    AsStoreMut, Extern, Function, FunctionEnv, FunctionEnvMut, Imports, Instance, Memory, MemoryView, RuntimeError,
    StoreMut, Value,
};

use crate::stdio::is_terminal;

const NAMESPACES: [&str; 3] = ["wasi_unstable", "wasi_snapshot_preview1", "wasix_32v1"];
const SUCCESS: i32 = 0;
/// A file type: none that WASI has a name for.
const UNKNOWN: u8 = 0;

thread_local! {
    static SYNCS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the guest, on this thread, is in ``fd_sync`` or ``fd_datasync``.
pub fn guest_syncs() -> bool {
    SYNCS.get()
}

/// WASIX's function, and the guest's memory once there is an instance.
struct Original {
    function: Function,
    memory: Option<Memory>,
}

impl Original {
    /// Call it and return its error number.
    fn call(env: &mut FunctionEnvMut<'_, Original>, arguments: &[Value]) -> Result<i32, RuntimeError> {
        let function = env.data().function.clone();
        let results = function.call(&mut env.as_store_mut(), arguments)?;
        Ok(results.first().and_then(Value::i32).unwrap_or(SUCCESS))
    }

    fn view<'a>(env: &'a FunctionEnvMut<'_, Original>) -> Option<MemoryView<'a>> {
        env.data().memory.as_ref().map(|memory| memory.view(env))
    }
}

/// What is still to be told of an instance's memory.
pub struct Hooked(Vec<FunctionEnv<Original>>);

/// Replace functions among an instance's imports.
pub fn replace(imports: &mut Imports, store: &mut StoreMut<'_>) -> Hooked {
    let mut hooked = Vec::new();
    for namespace in NAMESPACES {
        for name in ["fd_fdstat_get", "fd_sync", "fd_datasync"] {
            let Some(Extern::Function(function)) = imports.get_export(namespace, name) else { continue };
            let env = FunctionEnv::new(store, Original { function, memory: None });
            let own = match name {
                "fd_fdstat_get" => Function::new_typed_with_env(store, &env, fd_fdstat_get),
                _ => Function::new_typed_with_env(store, &env, fd_sync),
            };
            imports.define(namespace, name, own);
            hooked.push(env);
        }
    }
    Hooked(hooked)
}

impl Hooked {
    /// :param imported: the memory that the instance was given, if it does not have its own
    pub fn instantiated(self, store: &mut StoreMut<'_>, instance: &Instance, imported: Option<&Memory>) {
        let memory = imported.cloned().or_else(|| {
            let mut exports = instance.exports.iter().map(|(_name, export)| export);
            exports.find_map(|export| if let Extern::Memory(memory) = export { Some(memory.clone()) } else { None })
        });
        for env in self.0 {
            env.as_mut(store).memory = memory.clone();
        }
    }
}

fn fd_fdstat_get(mut env: FunctionEnvMut<'_, Original>, fd: i32, stat: i32) -> Result<i32, RuntimeError> {
    let errno = Original::call(&mut env, &[Value::I32(fd), Value::I32(stat)])?;
    if errno == SUCCESS && (0..=2).contains(&fd) && !is_terminal(fd) {
        // The type is fdstat's first byte (WASI preview 1). Where it was written just now, it can be written again.
        if let Some(view) = Original::view(&env) {
            view.write_u8(stat as u32 as u64, UNKNOWN).map_err(|error| RuntimeError::new(error.to_string()))?;
        }
    }
    Ok(errno)
}

fn fd_sync(mut env: FunctionEnvMut<'_, Original>, fd: i32) -> Result<i32, RuntimeError> {
    SYNCS.set(true);
    let errno = Original::call(&mut env, &[Value::I32(fd)]);
    SYNCS.set(false);
    errno
}
