//! One run of a guest.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use virtual_fs::{FileSystem, MountFileSystem, TmpFileSystem};
use wasmer::{Engine, InstantiationError, Module, RuntimeError, Store};
use wasmer_wasix::bin_factory::run_exec;
use wasmer_wasix::fs::Kind;
use wasmer_wasix::runtime::task_manager::TaskWasmRunProperties;
use wasmer_wasix::wasmer_wasix_types::wasi::Errno;
use wasmer_wasix::{
    VIRTUAL_ROOT_FD, WasiEnv, WasiEnvBuilder, WasiError, WasiFs, WasiFunctionEnv, WasiRuntimeError,
    WasiStateCreationError, WasiThreadError,
};

use crate::descriptors::Descriptors;
use crate::files::HostDirectory;
use crate::runtime::{Host, Tasks};
use crate::stdio::Stdio;

const START: &str = "_start";

/// As ``shimd.engine`` has it.
#[derive(Deserialize)]
pub struct Invocation {
    args: Vec<String>,
    env: Vec<(String, String)>,
    cwd: String,
    /// None within another.
    preopens: Vec<Preopen>,
    entry: String,
    network: bool,
}

#[derive(Deserialize)]
struct Preopen {
    host: String,
    guest: String,
    read_only: bool,
}

/// Why a guest has no exit code.
pub enum Failure {
    /// The guest's own doing: the message and the backtrace; empty if WASIX has written them to descriptor 2.
    Trap(String),
    Engine(String),
}

/// Run a guest to its end on this thread.
///
/// :returns: its exit code, 0 to 255
pub fn run(engine: &Engine, module: &Module, invocation: &Invocation) -> Result<i32, Failure> {
    let (tasks, descriptors) = (Tasks::default(), Descriptors::default());
    let builder = environment(&tasks, &descriptors, invocation).map_err(Failure::Engine)?;
    let host = Arc::new(Host::new(engine.clone(), tasks, descriptors, invocation.network));
    let mut store = Store::new(engine.clone());
    let (instance, ctx) = builder.runtime(host.clone()).instantiate(module.clone(), &mut store).map_err(not_started)?;
    if invocation.entry == START {
        return run_command(&host, ctx, store);
    }
    let function =
        instance.exports.get_function(&invocation.entry).map_err(|error| Failure::Engine(error.to_string()))?;
    match function.call(&mut store, &[]) {
        Ok(_) => Ok(0),
        Err(error) => exit_code(error),
    }
}

/// As WASIX runs programs, with all that they may do to their own stacks (contexts, vfork).
fn run_command(host: &Host, ctx: WasiFunctionEnv, store: Store) -> Result<i32, Failure> {
    let thread = ctx.data(&store).thread.clone();
    let run = TaskWasmRunProperties { ctx, store, trigger_result: None, recycle: None };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run_exec(run))) {
        // It tells of a trap on stderr, and panics if nobody listens there any more.
        return if host.trapped() { Err(Failure::Trap(String::new())) } else { resume_unwind(panic) };
    }
    let code = match thread.try_join() {
        Some(Ok(code)) => Some(code),
        Some(Err(error)) => error.as_exit_code(),
        None => return Err(Failure::Engine("the guest has neither ended nor failed".into())),
    };
    match code.map(|code| code.raw()) {
        Some(code) if code != Errno::Noexec as i32 || !host.trapped() => Ok(code & 0xFF),
        _ => Err(Failure::Trap(String::new())),
    }
}

fn exit_code(error: RuntimeError) -> Result<i32, Failure> {
    match error.downcast::<WasiError>() {
        Ok(WasiError::Exit(code)) => Ok(code.raw() & 0xFF),
        Ok(WasiError::ThreadExit) => Ok(0),
        Ok(other) => Err(Failure::Engine(other.to_string())),
        Err(error) => Err(Failure::Trap(error.to_string())),
    }
}

fn not_started(error: WasiRuntimeError) -> Failure {
    if let WasiRuntimeError::Thread(WasiThreadError::InstanceCreateFailed(error)) = &error
        && let InstantiationError::Start(trap) = error.as_ref()
    {
        return Failure::Trap(trap.to_string());
    }
    Failure::Engine(error.to_string())
}

fn environment(tasks: &Tasks, descriptors: &Descriptors, invocation: &Invocation) -> Result<WasiEnvBuilder, String> {
    let stdio = |fd| Box::new(Stdio::new(fd, tasks.clone()));
    let program = invocation.args.first().map_or("", String::as_str);
    let builder = WasiEnv::builder(program)
        .args(invocation.args.iter().skip(1))
        .envs(invocation.env.iter().map(|(name, value)| (name, value)))
        .stdin(stdio(0))
        .stdout(stdio(1))
        .stderr(stdio(2))
        .current_dir(&invocation.cwd)
        .disable_default_builtins(true);
    with_directories(builder, &invocation.preopens, descriptors)
}

fn with_directories(
    mut builder: WasiEnvBuilder,
    preopens: &[Preopen],
    descriptors: &Descriptors,
) -> Result<WasiEnvBuilder, String> {
    if let [root] = preopens
        && root.guest == "/"
    {
        let directory = directory(root)?;
        descriptors.preopened(VIRTUAL_ROOT_FD as i32, directory.clone());
        return Ok(builder.fs(shared(directory)).setup_fs(Box::new(|_inodes, fs| enter_root(fs))));
    }
    let tree = MountFileSystem::new();
    tree.mount("/", Arc::new(TmpFileSystem::new())).map_err(|error| error.to_string())?;
    for (preopen, fd) in preopens.iter().zip(VIRTUAL_ROOT_FD as i32 + 1..) {
        let (point, directory) = (mount_point(&preopen.guest, fd), directory(preopen)?);
        descriptors.preopened(fd, directory.clone());
        tree.mount(&point, shared(directory)).map_err(|error| format!("{}: {error}", preopen.guest))?;
        builder = builder
            .preopen_build(|made| {
                let made = made.directory(&point).read(true).write(!preopen.read_only).create(!preopen.read_only);
                if point.as_os_str() == preopen.guest.as_str() { made } else { made.alias(&preopen.guest) }
            })
            .map_err(|error: WasiStateCreationError| error.to_string())?;
    }
    Ok(builder.mount_fs(tree))
}

/// Where a directory is in WASIX's tree: where the guest has it, unless that is no place but a name (``.``).
fn mount_point(guest: &str, fd: i32) -> PathBuf {
    if guest.starts_with('/') { guest.into() } else { format!("/.preopened-{fd}").into() }
}

/// WASIX opens a root of its own first, in which there are mounts only, and nothing can be made. If the guest has a root of
/// the host's, it is that.
fn enter_root(fs: &mut WasiFs) -> Result<(), String> {
    let parent = fs.root_inode.downgrade();
    *fs.root_inode.write() = Kind::Dir { parent, path: "/".into(), entries: HashMap::new() };
    Ok(())
}

fn directory(preopen: &Preopen) -> Result<HostDirectory, String> {
    HostDirectory::open(&preopen.host, preopen.read_only).map_err(|error| format!("{}: {error}", preopen.host))
}

fn shared(directory: HostDirectory) -> Arc<dyn FileSystem + Send + Sync> {
    Arc::new(directory)
}
