//! WASI preview 1 with sockets that a module is given: calls about them are ours, all else is the crate's.
//!
//! Only modules that are given some pay for it: others have the crate's functions alone.

use wasmtime::{AsContextMut, Caller, Engine, Extern, Linker};
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as theirs, WasiSnapshotPreview1};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wiggle::GuestMemory;

use crate::engine;
use crate::poll;
use crate::sockets::Sockets;

pub struct Guest {
    pub wasi: WasiP1Ctx,
    pub sockets: Sockets,
}

/// Functions whose first argument is a descriptor: their others, and whether they are waited for.
macro_rules! led {
    ($linker:ident: $($name:ident($($argument:ident: $kind:ty),*) $(.$wait:tt)?;)*) => {$(
        $linker.func_wrap_async(
            engine::PREVIEW1,
            stringify!($name),
            |mut caller: Caller<'_, Guest>, (fd, $($argument,)*): (i32, $($kind,)*)| {
                Box::new(async move {
                    let (memory, guest) = parts(&mut caller)?;
                    if guest.sockets.own(fd as u32) {
                        return Ok(guest.sockets.call(stringify!($name), memory, fd as u32, &[$($argument as u64),*]));
                    }
                    let mut memory = GuestMemory::Unshared(memory);
                    theirs::$name(&mut guest.wasi, &mut memory, fd, $($argument),*)$(.$wait)?
                })
            },
        )?;
    )*};
}

pub fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |guest: &mut Guest| &mut guest.wasi)?;
    engine::exits(&mut linker)?;
    linker.allow_shadowing(true);
    led!(linker:
        fd_advise(a: i64, b: i64, c: i32).await;
        fd_allocate(a: i64, b: i64);
        fd_close().await;
        fd_datasync().await;
        fd_fdstat_get(a: i32).await;
        fd_fdstat_set_flags(a: i32);
        fd_fdstat_set_rights(a: i64, b: i64);
        fd_filestat_get(a: i32).await;
        fd_filestat_set_size(a: i64).await;
        fd_filestat_set_times(a: i64, b: i64, c: i32).await;
        fd_pread(a: i32, b: i32, c: i64, d: i32).await;
        fd_prestat_dir_name(a: i32, b: i32);
        fd_prestat_get(a: i32);
        fd_pwrite(a: i32, b: i32, c: i64, d: i32).await;
        fd_read(a: i32, b: i32, c: i32).await;
        fd_readdir(a: i32, b: i32, c: i64, d: i32).await;
        fd_renumber(a: i32).await;
        fd_seek(a: i64, b: i32, c: i32).await;
        fd_sync().await;
        fd_tell(a: i32);
        fd_write(a: i32, b: i32, c: i32).await;
        path_create_directory(a: i32, b: i32).await;
        path_filestat_get(a: i32, b: i32, c: i32, d: i32).await;
        path_filestat_set_times(a: i32, b: i32, c: i32, d: i64, e: i64, f: i32).await;
        path_link(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32).await;
        path_open(a: i32, b: i32, c: i32, d: i32, e: i64, f: i64, g: i32, h: i32).await;
        path_readlink(a: i32, b: i32, c: i32, d: i32, e: i32).await;
        path_remove_directory(a: i32, b: i32).await;
        path_rename(a: i32, b: i32, c: i32, d: i32, e: i32).await;
        path_unlink_file(a: i32, b: i32).await;
        sock_accept(a: i32, b: i32);
        sock_recv(a: i32, b: i32, c: i32, d: i32, e: i32);
        sock_send(a: i32, b: i32, c: i32, d: i32);
        sock_shutdown(a: i32);
    );
    linker.func_wrap_async(
        engine::PREVIEW1,
        "poll_oneoff",
        |mut caller: Caller<'_, Guest>, (asked, events, count, happened): (i32, i32, i32, i32)| {
            Box::new(async move {
                let (memory, guest) = parts(&mut caller)?;
                let [a, b, c, d] = [asked, events, count, happened].map(|it| it as u32);
                if poll::concerns(memory, &guest.sockets, a, c) {
                    return Ok(poll::oneoff(memory, &guest.sockets, a, b, c, d).err().unwrap_or(0));
                }
                let mut memory = GuestMemory::Unshared(memory);
                theirs::poll_oneoff(&mut guest.wasi, &mut memory, asked, events, count, happened).await
            })
        },
    )?;
    Ok(linker)
}

/// A guest's memory, and what it is given.
fn parts<'a>(caller: &'a mut Caller<'_, Guest>) -> wasmtime::Result<(&'a mut [u8], &'a mut Guest)> {
    let memory = caller.get_export("memory").and_then(Extern::into_memory);
    let memory = memory.ok_or_else(|| wasmtime::Error::msg("missing required memory export"))?;
    let fuel = caller.as_context_mut().hostcall_fuel();
    let (memory, guest) = memory.data_and_store_mut(caller);
    guest.wasi.set_hostcall_fuel(fuel);
    Ok((memory, guest))
}
