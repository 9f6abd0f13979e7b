//! Functions of WASI that are given to guests in place of WASIX's own, around which they are.
//!
//! * ``fd_fdstat_get``: WASIX says of descriptors 0, 1 and 2 that they are terminals, whatever they are; and of directories
//!   that they may be written to and sought in, with which rights they then do not open.
//! * ``fd_sync`` and ``fd_datasync``: files are told that it is the guest who wants them on disk.
//! * ``fd_write``: what appends goes to the file's end, where WASIX has it go to where the end was when it last looked.
//! * ``poll_oneoff``: a timer of no time is over at once, where WASIX takes it for one that never ends.
//! * Those that take paths: ``paths.rs``.

use std::cell::Cell;
use std::sync::Arc;
use std::thread::LocalKey;

use wasmer::{
    AsStoreMut, Extern, Function, FunctionEnv, FunctionEnvMut, Imports, Instance, Memory, MemoryAccessError,
    MemoryView, RuntimeError, StoreMut, Value,
};

use crate::descriptors::Descriptors;
use crate::paths;
use crate::stdio::is_terminal;

const NAMESPACES: [&str; 3] = ["wasi_unstable", "wasi_snapshot_preview1", "wasix_32v1"];
// WASI preview 1: errno, fdflags, filetype, rights.
pub const SUCCESS: i32 = 0;
const ACCES: i32 = 2;
const PERM: i32 = 63;
const ROFS: i32 = 69;
pub const APPEND: i32 = 1;
pub const UNKNOWN: u8 = 0;
pub const DIRECTORY: u8 = 3;
const SEEK_TELL_WRITE: u64 = 1 << 2 | 1 << 5 | 1 << 6;
// A subscription: its size, and where in it are its type and a clock's timeout (those of wasi_unstable are others).
const SUBSCRIPTION: u64 = 48;
const EVENT_TYPE: u64 = 8;
const TIMEOUT: u64 = 24;
const CLOCK: u8 = 0;

thread_local! {
    static SYNCS: Cell<bool> = const { Cell::new(false) };
    static APPENDS: Cell<bool> = const { Cell::new(false) };
    static READ_ONLY: Cell<bool> = const { Cell::new(false) };
}

/// Told by directories that the kernel refused a change on this thread, since the file system is read-only: WASIX has no
/// word for that.
pub fn found_read_only() {
    READ_ONLY.set(true);
}

/// The error number in the kernel's own words.
pub fn in_its_words(errno: i32) -> i32 {
    if READ_ONLY.take() && matches!(errno, ACCES | PERM) { ROFS } else { errno }
}

/// Whether the guest, on this thread, is in ``fd_sync`` or ``fd_datasync``.
pub fn guest_syncs() -> bool {
    SYNCS.get()
}

/// Whether the guest, on this thread, is in ``fd_write`` to a descriptor that appends.
pub fn guest_appends() -> bool {
    APPENDS.get()
}

pub type Env<'a> = FunctionEnvMut<'a, Original>;
pub type Returns = Result<i32, RuntimeError>;

/// WASIX's function, and the guest's memory once there is an instance.
pub struct Original {
    function: Function,
    memory: Option<Memory>,
    pub descriptors: Arc<Descriptors>,
}

/// What is still to be told of an instance's memory.
pub struct Hooked(Vec<FunctionEnv<Original>>);

const POLL: &str = "poll_oneoff";

/// Replace functions among an instance's imports.
pub fn replace(imports: &mut Imports, store: &mut StoreMut<'_>, descriptors: &Arc<Descriptors>) -> Hooked {
    let mut hooked = Vec::new();
    for namespace in NAMESPACES {
        for (name, wrap) in HOOKS {
            if name == POLL && namespace == "wasi_unstable" {
                continue;
            }
            let Some(Extern::Function(function)) = imports.get_export(namespace, name) else { continue };
            let descriptors = descriptors.clone();
            let env = FunctionEnv::new(store, Original { function, memory: None, descriptors });
            imports.define(namespace, name, wrap(store, &env));
            hooked.push(env);
        }
    }
    Hooked(hooked)
}

type Wrap = fn(&mut StoreMut<'_>, &FunctionEnv<Original>) -> Function;

/// The hook of a function, with WASIX's own beside it.
macro_rules! hook {
    ($name:expr, $function:path) => {
        ($name, |store, env| Function::new_typed_with_env(store, env, $function))
    };
}

const HOOKS: [(&str, Wrap); 19] = [
    hook!("fd_fdstat_get", fd_fdstat_get),
    hook!("fd_fdstat_set_flags", fd_fdstat_set_flags),
    hook!("fd_sync", fd_sync),
    hook!("fd_datasync", fd_sync),
    hook!("fd_renumber", fd_renumber),
    hook!("fd_write", fd_write),
    hook!(POLL, poll_oneoff),
    hook!("fd_filestat_get", paths::fd_filestat_get),
    hook!("fd_readdir", paths::fd_readdir),
    hook!("path_create_directory", paths::path_create_directory),
    hook!("path_filestat_get", paths::path_filestat_get),
    hook!("path_filestat_set_times", paths::path_filestat_set_times),
    hook!("path_link", paths::path_link),
    hook!("path_open", paths::path_open),
    hook!("path_open2", paths::path_open2),
    hook!("path_remove_directory", paths::path_remove_directory),
    hook!("path_rename", paths::path_rename),
    hook!("path_symlink", paths::path_symlink),
    hook!("path_unlink_file", paths::path_unlink_file),
];

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

/// Call WASIX's function and return its error number.
pub fn original(env: &mut Env<'_>, arguments: &[Value]) -> Returns {
    let function = env.data().function.clone();
    READ_ONLY.set(false);
    let results = function.call(&mut env.as_store_mut(), arguments)?;
    Ok(in_its_words(results.first().and_then(Value::i32).unwrap_or(SUCCESS)))
}

/// The same, with something said to what it calls.
fn saying(what: &'static LocalKey<Cell<bool>>, env: &mut Env<'_>, arguments: &[Value]) -> Returns {
    what.set(true);
    let errno = original(env, arguments);
    what.set(false);
    errno
}

pub fn view<'a>(env: &'a Env<'_>) -> Option<MemoryView<'a>> {
    env.data().memory.as_ref().map(|memory| memory.view(env))
}

pub fn text(env: &Env<'_>, at: i32, length: i32) -> Option<String> {
    let mut bytes = vec![0; length as u32 as usize];
    view(env)?.read(at as u32 as u64, &mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}

pub fn number(env: &Env<'_>, at: i32) -> Option<i32> {
    let mut bytes = [0; 4];
    view(env)?.read(at as u32 as u64, &mut bytes).ok()?;
    Some(i32::from_le_bytes(bytes))
}

fn fd_fdstat_get(mut env: Env<'_>, fd: i32, stat: i32) -> Returns {
    let errno = original(&mut env, &[Value::I32(fd), Value::I32(stat)])?;
    if errno == SUCCESS
        && let Some(view) = view(&env)
    {
        correct(&view, fd, stat as u32 as u64).map_err(outside)?;
    }
    Ok(errno)
}

/// The guest named memory that it does not have.
pub fn outside(error: MemoryAccessError) -> RuntimeError {
    RuntimeError::new(error.to_string())
}

/// What stands in an fdstat: the type is its first byte, rights to the descriptor itself are at 8.
fn correct(view: &MemoryView<'_>, fd: i32, stat: u64) -> Result<(), MemoryAccessError> {
    if (0..=2).contains(&fd) && !is_terminal(fd) {
        view.write_u8(stat, UNKNOWN)?;
    }
    if view.read_u8(stat)? == DIRECTORY {
        let mut rights = [0; 8];
        view.read(stat + 8, &mut rights)?;
        view.write(stat + 8, &(u64::from_le_bytes(rights) & !SEEK_TELL_WRITE).to_le_bytes())?;
    }
    Ok(())
}

fn fd_fdstat_set_flags(mut env: Env<'_>, fd: i32, flags: i32) -> Returns {
    let errno = original(&mut env, &[Value::I32(fd), Value::I32(flags)])?;
    if errno == SUCCESS {
        env.data().descriptors.set_appends(fd, flags & APPEND != 0);
    }
    Ok(errno)
}

fn fd_sync(mut env: Env<'_>, fd: i32) -> Returns {
    saying(&SYNCS, &mut env, &[Value::I32(fd)])
}

fn fd_renumber(mut env: Env<'_>, from: i32, to: i32) -> Returns {
    let errno = original(&mut env, &[Value::I32(from), Value::I32(to)])?;
    if errno == SUCCESS {
        env.data().descriptors.renumbered(from, to);
    }
    Ok(errno)
}

fn fd_write(mut env: Env<'_>, fd: i32, data: i32, count: i32, written: i32) -> Returns {
    let arguments = [fd, data, count, written].map(Value::I32);
    if env.data().descriptors.appends(fd) {
        saying(&APPENDS, &mut env, &arguments)
    } else {
        original(&mut env, &arguments)
    }
}

fn poll_oneoff(mut env: Env<'_>, subscriptions: i32, events: i32, count: i32, seen: i32) -> Returns {
    let timers = timers_of_no_time(&env, subscriptions as u32 as u64, count as u32 as u64);
    set_timeouts(&env, &timers, 1)?; // of a nanosecond: WASIX does not sleep at all
    let errno = original(&mut env, &[subscriptions, events, count, seen].map(Value::I32));
    set_timeouts(&env, &timers, 0)?;
    errno
}

/// Where the timeouts stand of the timers among the subscriptions that have none.
fn timers_of_no_time(env: &Env<'_>, subscriptions: u64, count: u64) -> Vec<u64> {
    let Some(view) = view(env) else { return Vec::new() };
    let is_one = |at: u64| -> Result<bool, MemoryAccessError> {
        let mut timeout = [0; 8];
        view.read(at + TIMEOUT, &mut timeout)?;
        Ok(view.read_u8(at + EVENT_TYPE)? == CLOCK && timeout == [0; 8])
    };
    let all = (0..count).map(|number| subscriptions + number * SUBSCRIPTION);
    all.map_while(|at| is_one(at).ok().map(|is| (at, is)))
        .filter(|(_at, is)| *is)
        .map(|(at, _is)| at + TIMEOUT)
        .collect()
}

fn set_timeouts(env: &Env<'_>, timers: &[u64], nanoseconds: u64) -> Result<(), RuntimeError> {
    let Some(view) = view(env) else { return Ok(()) };
    timers.iter().try_for_each(|at| view.write(*at, &nanoseconds.to_le_bytes())).map_err(outside)
}
