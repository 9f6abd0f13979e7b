//! What passes between shimd and this library: ``engine.h``, and the block that ``wasmtime_native.py`` packs.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::slice;
use std::time::Duration;

use crate::bridge::Bridged;
use crate::host::Preopen;
use crate::http::Settings;

/// ``EXIT_TRAP`` and ``EXIT_ENGINE`` of engine.py, and the gRPC code of an artefact that does not load.
pub const EXIT_TRAP: c_int = 134;
pub const EXIT_ENGINE: c_int = 137;
pub const DATA_LOSS: c_int = 15;

/// ``struct engine``.
#[repr(C)]
pub struct Part {
    pub load: unsafe extern "C" fn(*mut c_void, *const c_void, *mut c_int, *mut c_char, usize) -> *mut c_void,
    pub run: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub context: *mut c_void,
}

// Its context is not used.
unsafe impl Sync for Part {}

/// Why something cannot be loaded, for whoever asked for the container.
pub struct Failure {
    pub code: c_int,
    pub sentence: String,
}

impl<T: Into<String>> From<T> for Failure {
    fn from(sentence: T) -> Self {
        Self { code: DATA_LOSS, sentence: sentence.into() }
    }
}

#[repr(C)]
struct Packed {
    artifact: *const c_char,
    kind: u64,
    entry: *const c_char,
    argc: u64,
    argv: *const *const c_char,
    envc: u64,
    names: *const *const c_char,
    values: *const *const c_char,
    preopens: u64,
    preopen: *const PackedPreopen,
    network: u64,
    contained: u64,
    servers: u64,
    server: *const PackedSettings,
    listeners: u64,
    listener: *const u64,
    interfaces: u64,
    interface: *const *const c_char,
    ask: u64,
    application: *const c_char,
}

/// Of a server.
#[repr(C)]
struct PackedSettings {
    host: *const c_char,
    port: u64,
    backlog: u64,
    timeout: u64,
    concurrency: u64,
    grace: u64,
    access_log: u64,
    reuse: u64,
    idle: u64,
}

#[repr(C)]
struct PackedPreopen {
    host: *const c_char,
    guest: *const c_char,
    read_only: u64,
}

/// What a program is, as ``wasmtime_native.py`` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Module,
    Command2,
    Command3,
    Server2,
    Server3,
    Spin,
}

/// What is to be run.
pub struct Block {
    pub artifact: String,
    pub kind: Kind,
    pub entry: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub preopens: Vec<Preopen>,
    pub network: bool,
    pub contained: bool,
    pub server: Option<Settings>,
    /// The process's descriptors of sockets that a module is given.
    pub listening: Vec<c_int>,
    pub bridged: Bridged,
    /// Of Spin: what ``spin/application.rs`` reads; else empty.
    pub application: String,
}

impl Block {
    /// # Safety
    /// It is a block that ``wasmtime_native.py`` has packed, its pointers made absolute.
    pub unsafe fn read(block: *const c_void) -> Self {
        let packed = unsafe { &*block.cast::<Packed>() };
        let names = unsafe { texts(packed.names, packed.envc) };
        let values = unsafe { texts(packed.values, packed.envc) };
        let preopens = unsafe { items(packed.preopen, packed.preopens) };
        Self {
            artifact: unsafe { text(packed.artifact) },
            kind: match packed.kind {
                0 => Kind::Module,
                1 => Kind::Command2,
                2 => Kind::Command3,
                3 => Kind::Server2,
                4 => Kind::Server3,
                _ => Kind::Spin,
            },
            entry: unsafe { text(packed.entry) },
            args: unsafe { texts(packed.argv, packed.argc) },
            env: names.into_iter().zip(values).collect(),
            preopens: preopens
                .iter()
                .map(|it| Preopen {
                    host: unsafe { text(it.host) },
                    guest: unsafe { text(it.guest) },
                    read_only: it.read_only != 0,
                })
                .collect(),
            network: packed.network != 0,
            contained: packed.contained != 0,
            server: unsafe { items(packed.server, packed.servers) }.first().map(|it| unsafe { settings(it) }),
            listening: unsafe { items(packed.listener, packed.listeners) }.iter().map(|fd| *fd as c_int).collect(),
            bridged: Bridged {
                interfaces: unsafe { texts(packed.interface, packed.interfaces) },
                ask: packed.ask as c_int,
            },
            application: unsafe { text(packed.application) },
        }
    }
}

unsafe fn settings(packed: &PackedSettings) -> Settings {
    Settings {
        host: unsafe { text(packed.host) },
        port: packed.port as u16,
        backlog: packed.backlog as u32,
        timeout: (packed.timeout > 0).then(|| Duration::from_secs(packed.timeout.min(86400 * 365))),
        concurrency: packed.concurrency as usize,
        grace: Duration::from_secs(packed.grace),
        access_log: packed.access_log != 0,
        reuse: packed.reuse as usize,
        idle: Duration::from_secs(packed.idle),
    }
}

unsafe fn items<'a, T>(first: *const T, count: u64) -> &'a [T] {
    if count == 0 { &[] } else { unsafe { slice::from_raw_parts(first, count as usize) } }
}

unsafe fn texts(first: *const *const c_char, count: u64) -> Vec<String> {
    unsafe { items(first, count) }.iter().map(|it| unsafe { text(*it) }).collect()
}

/// # Safety
/// It ends with NUL.
pub unsafe fn text(text: *const c_char) -> String {
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Write a sentence into a buffer of C's, on one line and not longer than that is.
///
/// # Safety
/// There are ``size`` bytes.
pub unsafe fn put(sentence: &str, buffer: *mut c_char, size: usize) {
    let line = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut end = line.len().min(size - 1);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    let to = unsafe { slice::from_raw_parts_mut(buffer.cast::<u8>(), end + 1) };
    to[..end].copy_from_slice(&line.as_bytes()[..end]);
    to[end] = 0;
}

/// On the app's standard error, whole, whoever else writes there.
pub fn tell(text: &str) {
    let line = format!("{}\n", text.trim_end_matches(['\n', '\0']));
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        let written = unsafe { libc::write(2, rest.as_ptr().cast(), rest.len()) };
        if written <= 0 {
            return; // nobody listens any more
        }
        rest = &rest[written as usize..];
    }
}

/// What we did wrong, or cannot.
pub fn failed(reason: &str) -> c_int {
    tell(&format!("shimd: {}", reason.split_whitespace().collect::<Vec<_>>().join(" ")));
    EXIT_ENGINE
}
