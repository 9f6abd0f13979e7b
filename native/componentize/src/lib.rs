//! What Spin and cargo-component do with a core module of WASI preview 1 that was made with bindings of the component
//! model: wrap it into a component, with wasmtime's adapter from preview 1 to 0.2. And what Spin does with a component that
//! has dependencies: put one together of all. ``shimd/engines/componentize.py`` is the other side.
//! No function may be called with pointers that did not come from the other; panics end here, as failures.

mod compose;
mod deny;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use anyhow::{Result, anyhow};
use wasi_preview1_component_adapter_provider as provider;
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

/// Make a component of the module of ``length`` bytes at ``wasm``.
///
/// :returns: 0, and ``made`` and ``size`` are the component; 1, and they are the reason, UTF-8. They are the caller's, who
/// returns them with ``shimd_componentize_free``
///
/// # Safety
/// There are ``length`` bytes at ``wasm``, and ``made`` and ``size`` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shimd_componentize(
    wasm: *const u8,
    length: usize,
    made: *mut *mut u8,
    size: *mut usize,
) -> i32 {
    let wasm = unsafe { slice::from_raw_parts(wasm, length) };
    unsafe { outcome(|| componentize(wasm), made, size) }
}

/// Bytes that the caller has.
#[repr(C)]
pub struct Bytes {
    start: *const u8,
    length: usize,
}

/// Put a component together, of ``count`` others at ``parts``, as a plan says: JSON, see ``compose.rs``.
///
/// :returns: as ``shimd_componentize`` does
///
/// # Safety
/// There are as many bytes, and parts, as that says, and ``made`` and ``size`` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shimd_compose(
    plan: Bytes,
    parts: *const Bytes,
    count: usize,
    made: *mut *mut u8,
    size: *mut usize,
) -> i32 {
    let bytes = |one: &Bytes| unsafe { slice::from_raw_parts(one.start, one.length) };
    let parts: Vec<&[u8]> = unsafe { slice::from_raw_parts(parts, count) }.iter().map(bytes).collect();
    let plan = bytes(&plan);
    unsafe { outcome(|| compose::compose(&serde_json::from_slice(plan)?, &parts), made, size) }
}

/// Do it, and tell the caller.
///
/// # Safety
/// ``made`` and ``size`` may be written to.
unsafe fn outcome(make: impl FnOnce() -> Result<Vec<u8>>, made: *mut *mut u8, size: *mut usize) -> i32 {
    let result = catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|_| Err(anyhow!("a panic")));
    let (code, bytes) = match result {
        Ok(component) => (0, component),
        Err(error) => (1, format!("{error:#}").into_bytes()),
    };
    let bytes = bytes.into_boxed_slice();
    unsafe {
        *size = bytes.len();
        *made = Box::into_raw(bytes).cast();
    }
    code
}

/// # Safety
/// Both are what one of the others gave, and are returned once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shimd_componentize_free(made: *mut u8, size: usize) {
    drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(made, size)) });
}

fn componentize(wasm: &[u8]) -> Result<Vec<u8>> {
    let adapter = if is_command(wasm)? {
        provider::WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER
    } else {
        provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER
    };
    let name = provider::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME;
    ComponentEncoder::default().validate(true).module(wasm)?.adapter(name, adapter)?.encode()
}

/// Whether it has a ``_start``, which the other adapter would leave uncalled.
fn is_command(wasm: &[u8]) -> Result<bool> {
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::ExportSection(exports) = payload? {
            for export in exports {
                if export?.name == "_start" {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}
