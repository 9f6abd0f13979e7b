//! Programs that run once: core modules, and what exports ``wasi:cli/run``.

use std::borrow::Cow;
use std::ffi::c_int;

use tokio::runtime::{Builder, Runtime};
use wasmtime::component::Component;
use wasmtime::{Linker, Module, Store};
use wasmtime_wasi::{I32Exit, WasiCtxBuilder, p2, p3};

use crate::abi::{Block, EXIT_TRAP, Kind, tell};
use crate::engine::{Flavour, Warm};
use crate::host::{Host, outgoing, wasi};
use crate::preview1::{self, Guest};
use crate::sockets::Sockets;

/// What a component's failure is, which knows no other.
const FAILURE: c_int = 1;

pub fn run_module(warm: &Warm, block: &Block, module: &Module) -> Result<c_int, String> {
    let wasi = world(block)?.build_p1();
    if block.listening.is_empty() {
        return run_with(block, module, wasi, &warm.modules);
    }
    let linker = preview1::linker(&warm.commands).map_err(|error| format!("{error:#}"))?;
    let sockets = unsafe { Sockets::new(&block.listening) };
    run_with(block, module, Guest { wasi, sockets }, &linker)
}

fn run_with<T: Send + 'static>(block: &Block, module: &Module, given: T, linker: &Linker<T>) -> Result<c_int, String> {
    let mut store = Store::new(module.engine(), given);
    let call = async {
        let instance = linker.instantiate_async(&mut store, module).await?;
        instance.get_typed_func::<(), ()>(&mut store, &block.entry)?.call_async(&mut store, ()).await
    };
    Ok(code_of(runtime()?.block_on(call).map(Ok)))
}

pub fn run_component(warm: &Warm, block: &Block, component: &Component) -> Result<c_int, String> {
    let mut store = Store::new(component.engine(), Host::new(world(block)?.build(), outgoing(block)));
    let call = async {
        if block.kind == Kind::Command2 {
            let mut linker = Cow::Borrowed(&warm.components);
            if !block.bridged.is_empty() {
                block.bridged.link(linker.to_mut(), component)?;
            }
            let command = p2::bindings::Command::instantiate_async(&mut store, component, &linker).await?;
            return command.wasi_cli_run().call_run(&mut store).await;
        }
        let mut linker = Flavour::of(block.kind).linker(component.engine())?;
        block.bridged.link(&mut linker, component)?;
        let command = p3::bindings::Command::instantiate_async(&mut store, component, &linker).await?;
        store.run_concurrent(async move |accessor| command.wasi_cli_run().call_run(accessor).await).await?
    };
    Ok(code_of(runtime()?.block_on(call)))
}

/// Its file operations are done where it runs: nothing else waits for that thread.
fn world(block: &Block) -> Result<WasiCtxBuilder, String> {
    let mut builder = wasi(block)?;
    builder.allow_blocking_current_thread(true);
    Ok(builder)
}

fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())
}

fn code_of(result: wasmtime::Result<Result<(), ()>>) -> c_int {
    match result {
        Ok(Ok(())) => 0,
        Ok(Err(())) => FAILURE,
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => exit.0 & 0xff,
            None => {
                tell(&format!("{error:?}"));
                EXIT_TRAP
            }
        },
    }
}
