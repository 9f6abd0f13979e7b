//! wasmer and WASIX as shimd uses them, behind six functions of C. ``shimd/engines/wasmer/native.py`` is the other side.
//!
//! Strings are NUL-terminated UTF-8; what is structured is JSON. Text that a function gives is the caller's, who returns it
//! with ``shimd_wasmer_free``. An engine is made once, before forks, and starts no thread until something runs or compiles.
//! No function may be called with pointers that did not come from the others; panics end here, as failures.

mod compile;
mod descriptors;
mod files;
mod hooks;
mod paths;
mod run;
mod runtime;
mod stdio;

use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::slice;

use wasmer::{Engine, Module};

/// What functions return beside exit codes, 0 to 255: the text says more.
const DONE: i32 = 0;
const FAILED: i32 = -1;
const INVALID: i32 = -2;
const TRAPPED: i32 = -3;

#[unsafe(no_mangle)]
pub extern "C" fn shimd_wasmer_engine() -> *mut Engine {
    Box::into_raw(Box::new(compile::engine()))
}

/// Compile the module of ``length`` bytes at ``wasm`` into a file at ``path``.
///
/// :returns: ``DONE``, and the text is the module's facts; ``INVALID`` or ``FAILED``, and why
///
/// # Safety
/// The engine is ours, there are ``length`` bytes at ``wasm``, the path ends with NUL, and ``text`` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shimd_wasmer_compile(
    engine: *const Engine,
    wasm: *const u8,
    length: usize,
    path: *const c_char,
    text: *mut *mut c_char,
) -> i32 {
    let (engine, wasm) = unsafe { (&*engine, slice::from_raw_parts(wasm, length)) };
    guarded(text, || match compile::compile(engine, wasm, Path::new(string(path)?)) {
        Ok(facts) => Ok((DONE, serde_json::to_string(&facts).map_err(|error| error.to_string())?)),
        Err(compile::Failure::Invalid(reason)) => Ok((INVALID, reason)),
        Err(compile::Failure::Engine(reason)) => Err(reason),
    })
}

/// Map a compiled module, which is trusted, and must not change while it is used.
///
/// :returns: ``DONE``, and ``module`` is set; ``FAILED``, and why
///
/// # Safety
/// The engine is ours, the path ends with NUL, and ``module`` and ``text`` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shimd_wasmer_load(
    engine: *const Engine,
    path: *const c_char,
    module: *mut *mut Module,
    text: *mut *mut c_char,
) -> i32 {
    let engine = unsafe { &*engine };
    guarded(text, || {
        let loaded =
            unsafe { Module::deserialize_from_file(engine, string(path)?) }.map_err(|error| error.to_string())?;
        unsafe { *module = Box::into_raw(Box::new(loaded)) };
        Ok((DONE, String::new()))
    })
}

/// Run a module to its end on this thread, by an invocation as JSON (``run::Invocation``).
///
/// :returns: the guest's exit code, or ``TRAPPED`` or ``FAILED``, and why
///
/// # Safety
/// Engine and module are ours, the invocation ends with NUL, and ``text`` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shimd_wasmer_run(
    engine: *const Engine,
    module: *const Module,
    invocation: *const c_char,
    text: *mut *mut c_char,
) -> i32 {
    let (engine, module) = unsafe { (&*engine, &*module) };
    guarded(text, || {
        let invocation = serde_json::from_str(string(invocation)?).map_err(|error| error.to_string())?;
        match run::run(engine, module, &invocation) {
            Ok(code) => Ok((code, String::new())),
            Err(run::Failure::Trap(message)) => Ok((TRAPPED, message)),
            Err(run::Failure::Engine(reason)) => Err(reason),
        }
    })
}

/// # Safety
/// The text is what one of the others gave, and is returned once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shimd_wasmer_free(text: *mut c_char) {
    if !text.is_null() {
        drop(unsafe { CString::from_raw(text) });
    }
}

fn string<'a>(text: *const c_char) -> Result<&'a str, String> {
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|error| error.to_string())
}

/// Call, and hand over the text; errors and panics are ``FAILED``.
fn guarded(text: *mut *mut c_char, call: impl FnOnce() -> Result<(i32, String), String>) -> i32 {
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        Err(message.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or("a panic".into()))
    });
    let (code, message) = result.unwrap_or_else(|reason| (FAILED, reason));
    unsafe { *text = CString::new(message.replace('\0', "\u{fffd}")).unwrap_or_default().into_raw() };
    code
}
