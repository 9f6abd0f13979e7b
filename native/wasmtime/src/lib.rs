//! wasmtime as shimd uses it: an engine part (``shimd/engines/engine.h``), whose workers have no Python in them, and a
//! compiler. ``shimd/engines/wasmtime_native.py`` is the other side.
//!
//! Engines and linkers are made once, before forks, and no thread is started until something runs or compiles.
//! Panics end here, as failures.

mod abi;
mod bridge;
mod clock;
mod command;
mod compile;
mod connect;
mod contained;
mod destinations;
mod engine;
mod extras;
mod host;
mod http;
mod outgoing;
mod poll;
mod preview1;
mod program;
mod sockets;
mod spin;
mod trust;

use std::ffi::{CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::OnceLock;

use abi::{Block, Part};
use engine::Warm;
use program::Program;

/// What ``shimd_wasmtime_compile`` returns: the text says more.
const DONE: c_int = 0;
const FAILED: c_int = -1;
const INVALID: c_int = -2;

static WARM: OnceLock<Warm> = OnceLock::new();

/// ``make_engine`` of engine.h. The argument is the library with contained.c in it; empty: there is none.
///
/// # Safety
/// There are as many strings as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shimd_engine(count: c_int, arguments: *const *const c_char) -> *const Part {
    static PART: Part = Part { load, run, context: std::ptr::null_mut() };
    if count != 1 {
        return std::ptr::null();
    }
    let library = unsafe { abi::text(*arguments) };
    let made = catch_unwind(AssertUnwindSafe(|| Warm::new(&library))).unwrap_or_else(|panic| Err(said(&*panic)));
    match made {
        Ok(warm) => {
            let _ = WARM.set(warm);
            &PART
        }
        Err(reason) => {
            abi::tell(&format!("shimd: wasmtime: {reason}"));
            std::ptr::null()
        }
    }
}

unsafe extern "C" fn load(
    _context: *mut c_void,
    block: *const c_void,
    code: *mut c_int,
    sentence: *mut c_char,
    size: usize,
) -> *mut c_void {
    let load = || {
        let block = unsafe { Block::read(block) };
        Program::load(WARM.get().ok_or("the engine was not made")?, block)
    };
    match catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|panic| Err(said(&*panic).into())) {
        Ok(program) => {
            unsafe { *code = program.signals() };
            Box::into_raw(Box::new(program)).cast()
        }
        Err(failure) => {
            unsafe { *code = failure.code };
            unsafe { abi::put(&failure.sentence, sentence, size) };
            std::ptr::null_mut()
        }
    }
}

unsafe extern "C" fn run(program: *mut c_void) -> c_int {
    let program = unsafe { Box::from_raw(program.cast::<Program>()) };
    let run = || program.run(WARM.get().expect("it was made"));
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| abi::failed(&said(&*panic)))
}

/// Compile a program of ``length`` bytes at ``wasm``: a module or a component, in the binary format.
///
/// :param bridged: names of interfaces that it may import over a bridge, a line each
///
/// :returns: ``DONE``, the compiled form, and its facts as JSON (``compile::Facts``); ``INVALID`` or ``FAILED``, and why.
/// Both are the caller's, who returns them with ``shimd_wasmtime_free``.
///
/// # Safety
/// There are ``length`` bytes at ``wasm``, ``bridged`` ends with NUL, and the others may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shimd_wasmtime_compile(
    wasm: *const u8,
    length: usize,
    bridged: *const c_char,
    made: *mut *mut u8,
    size: *mut usize,
    text: *mut *mut c_char,
) -> c_int {
    let wasm = unsafe { slice::from_raw_parts(wasm, length) };
    let bridged = unsafe { abi::text(bridged) }.lines().map(str::to_string).collect::<Vec<_>>();
    let result = catch_unwind(AssertUnwindSafe(|| compile::compile(wasm, &bridged)))
        .unwrap_or_else(|panic| Err(compile::Failure::Engine(said(&*panic))));
    let (code, bytes, message) = match result {
        Ok((bytes, facts)) => (DONE, bytes, facts),
        Err(compile::Failure::Invalid(reason)) => (INVALID, Vec::new(), reason),
        Err(compile::Failure::Engine(reason)) => (FAILED, Vec::new(), reason),
    };
    let bytes = Box::leak(bytes.into_boxed_slice());
    unsafe {
        *made = bytes.as_mut_ptr();
        *size = bytes.len();
        *text = CString::new(message.replace('\0', "\u{fffd}")).unwrap_or_default().into_raw();
    }
    code
}

/// # Safety
/// They are what ``shimd_wasmtime_compile`` gave, and are returned once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shimd_wasmtime_free(made: *mut u8, size: usize, text: *mut c_char) {
    drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(made, size)) });
    drop(unsafe { CString::from_raw(text) });
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_string()
}
