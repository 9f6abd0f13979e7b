//! Functions of WASI that take paths, as the kernel has them; see ``hooks.rs``.
//!
//! * ``path_filestat_get``, ``fd_filestat_get``, ``fd_readdir``: WASIX makes inode numbers up, of paths, or gives none.
//! * ``path_filestat_set_times``: it sets the times of the directory that the file is in.
//! * ``path_link``: it asks no file system for hard links, but keeps them in memory and says that they were made.
//! * ``path_unlink_file`` of a directory, and ``path_rename`` of one to where it cannot be: it refuses, as it must, and
//!   has forgotten the directory by then.
//! * ``path_remove_directory``: it does not find what it has not looked at before.
//!
//! * All that make something: of a file system that is read-only it says ``EPERM``, or ``EACCES``.
//!
//! What is opened and renamed is listened to, for where descriptors are. Of those that are not in a directory of the host's
//! WASIX's own functions are called.

use std::cell::Cell;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use virtual_fs::FsError;
use wasmer::Value;
use wasmer_wasix::fs::fs_error_into_wasi_err;

use crate::descriptors::Descriptors;
use crate::hooks::{
    APPEND, DIRECTORY, Env, Returns, SUCCESS, UNKNOWN, in_its_words, number, original, outside, text, view,
};
use crate::stdio::is_terminal;

/// Where the type is in a filestat.
const FILETYPE: u64 = 16;
// WASI preview 1: errno, lookupflags, fstflags, filetype.
const INVAL: i32 = 28;
const ISDIR: i32 = 31;
const NOENT: i32 = 44;
const NOTDIR: i32 = 54;
const NOTEMPTY: i32 = 55;
const FOLLOW: i32 = 1;
const ATIM: i32 = 1;
const ATIM_NOW: i32 = 2;
const MTIM: i32 = 4;
const MTIM_NOW: i32 = 8;

thread_local! {
    static SEEN: Cell<Option<Metadata>> = const { Cell::new(None) };
}

/// Told by files that were asked for their size, say.
pub fn seen(metadata: &Metadata) {
    SEEN.set(Some(metadata.clone()));
}

pub fn fd_filestat_get(mut env: Env<'_>, fd: i32, stat: i32) -> Returns {
    SEEN.set(None);
    let errno = original(&mut env, &[Value::I32(fd), Value::I32(stat)])?;
    let found = SEEN.take().or_else(|| env.data().descriptors.stat(fd, ".", true)?.ok());
    match found {
        Some(found) if errno == SUCCESS => put_stat(&env, stat, &found),
        None if errno == SUCCESS && (0..=2).contains(&fd) && !is_terminal(fd) => put_type(&env, stat, UNKNOWN),
        _ => Ok(errno),
    }
}

/// Of a stream, which WASIX takes for a terminal.
fn put_type(env: &Env<'_>, stat: i32, kind: u8) -> Returns {
    if let Some(view) = view(env) {
        view.write_u8(u64::from(stat as u32) + FILETYPE, kind).map_err(outside)?;
    }
    Ok(SUCCESS)
}

pub fn path_filestat_get(mut env: Env<'_>, base: i32, lookup: i32, path: i32, length: i32, stat: i32) -> Returns {
    let name = text(&env, path, length);
    match name.and_then(|name| env.data().descriptors.stat(base, &name, lookup & FOLLOW != 0)) {
        Some(Ok(found)) => put_stat(&env, stat, &found),
        Some(Err(error)) => Ok(errno(error)),
        None => original(&mut env, &[base, lookup, path, length, stat].map(Value::I32)),
    }
}

fn put_stat(env: &Env<'_>, at: i32, found: &Metadata) -> Returns {
    let time = |seconds: i64, nanoseconds: i64| (seconds * 1_000_000_000 + nanoseconds) as u64;
    let fields = [
        found.dev(),
        found.ino(),
        u64::from(file_type(found)), // a byte, and padding
        found.nlink(),
        found.len(),
        time(found.atime(), found.atime_nsec()),
        time(found.mtime(), found.mtime_nsec()),
        time(found.ctime(), found.ctime_nsec()),
    ];
    if let Some(view) = view(env) {
        view.write(at as u32 as u64, &fields.map(u64::to_le_bytes).concat()).map_err(outside)?;
    }
    Ok(SUCCESS)
}

fn file_type(found: &Metadata) -> u8 {
    let kind = found.file_type();
    match () {
        () if kind.is_block_device() => 1,
        () if kind.is_char_device() => 2,
        () if kind.is_dir() => DIRECTORY,
        () if kind.is_file() => 4,
        () if kind.is_socket() => 6,
        () if kind.is_symlink() => 7,
        () => 0,
    }
}

pub fn fd_readdir(mut env: Env<'_>, fd: i32, buffer: i32, length: i32, cookie: i64, used: i32) -> Returns {
    let [fd_, buffer_, length_, used_] = [fd, buffer, length, used].map(Value::I32);
    let errno = original(&mut env, &[fd_, buffer_, length_, Value::I64(cookie), used_])?;
    if errno == SUCCESS {
        put_numbers(&env, fd, buffer as u32, number(&env, used).unwrap_or(0) as u32);
    }
    Ok(errno)
}

/// Inode numbers into entries: the next cookie, the number, the name's length, the type, and the name.
fn put_numbers(env: &Env<'_>, fd: i32, buffer: u32, used: u32) {
    const HEAD: u32 = 24;
    let mut at = 0;
    while at + HEAD < used {
        let Some(length) = number(env, (buffer + at + 16) as i32) else { return };
        let name = buffer + at + HEAD;
        if at + HEAD + length as u32 > used {
            return; // the rest of it comes with the next call
        }
        if let (Some(name), Some(view)) = (text(env, name as i32, length), view(env))
            && let Some(Ok(found)) = env.data().descriptors.stat(fd, &name, false)
        {
            view.write(u64::from(buffer + at + 8), &found.ino().to_le_bytes()).ok();
        }
        at += HEAD + length as u32;
    }
}

#[allow(clippy::too_many_arguments)]
pub fn path_filestat_set_times(
    mut env: Env<'_>,
    base: i32,
    lookup: i32,
    path: i32,
    length: i32,
    atim: i64,
    mtim: i64,
    flags: i32,
) -> Returns {
    let (Some(last_access), Some(last_modification)) =
        (time(atim, flags, ATIM, ATIM_NOW), time(mtim, flags, MTIM, MTIM_NOW))
    else {
        return Ok(INVAL);
    };
    let times = Timestamps { last_access, last_modification };
    let name = text(&env, path, length);
    match name.and_then(|name| env.data().descriptors.set_times(base, &name, lookup & FOLLOW != 0, &times)) {
        Some(result) => Ok(result.map_or_else(errno, |()| SUCCESS)),
        None => {
            let where_ = [base, lookup, path, length].map(Value::I32);
            original(&mut env, &[&where_[..], &[atim, mtim].map(Value::I64), &[Value::I32(flags)]].concat())
        }
    }
}

/// `None`: it is to be set to a value, and to now.
fn time(nanoseconds: i64, flags: i32, set: i32, now: i32) -> Option<Timespec> {
    let nanoseconds = nanoseconds as u64;
    match (flags & set != 0, flags & now != 0) {
        (true, true) => None,
        (true, false) => Some(Timespec {
            tv_sec: (nanoseconds / 1_000_000_000) as i64,
            tv_nsec: (nanoseconds % 1_000_000_000) as i64,
        }),
        (false, now) => Some(Timespec { tv_sec: 0, tv_nsec: if now { UTIME_NOW } else { UTIME_OMIT } }),
    }
}

#[allow(clippy::too_many_arguments)]
pub fn path_link(
    env: Env<'_>,
    base: i32,
    lookup: i32,
    path: i32,
    length: i32,
    new_base: i32,
    new_path: i32,
    new_length: i32,
) -> i32 {
    let (Some(path), Some(new_path)) = (text(&env, path, length), text(&env, new_path, new_length)) else {
        return INVAL;
    };
    if lookup & FOLLOW != 0 {
        return INVAL;
    }
    env.data().descriptors.link((base, &path), (new_base, &new_path)).map_or_else(errno, |()| SUCCESS)
}

#[allow(clippy::too_many_arguments)]
pub fn path_open(
    mut env: Env<'_>,
    base: i32,
    lookup: i32,
    path: i32,
    length: i32,
    how: i32,
    rights: i64,
    inheriting: i64,
    flags: i32,
    opened: i32,
) -> Returns {
    let where_ = [base, lookup, path, length, how].map(Value::I32);
    let rights = [rights, inheriting].map(Value::I64);
    let errno = original(&mut env, &[&where_[..], &rights, &[flags, opened].map(Value::I32)].concat())?;
    note_opened(&env, errno, base, (path, length), flags, opened);
    Ok(errno)
}

#[allow(clippy::too_many_arguments)]
pub fn path_open2(
    mut env: Env<'_>,
    base: i32,
    lookup: i32,
    path: i32,
    length: i32,
    how: i32,
    rights: i64,
    inheriting: i64,
    flags: i32,
    more_flags: i32,
    opened: i32,
) -> Returns {
    let where_ = [base, lookup, path, length, how].map(Value::I32);
    let rights = [rights, inheriting].map(Value::I64);
    let errno = original(&mut env, &[&where_[..], &rights, &[flags, more_flags, opened].map(Value::I32)].concat())?;
    note_opened(&env, errno, base, (path, length), flags, opened);
    Ok(errno)
}

fn note_opened(env: &Env<'_>, errno: i32, base: i32, path: (i32, i32), flags: i32, opened: i32) {
    if errno == SUCCESS
        && let (Some(path), Some(fd)) = (text(env, path.0, path.1), number(env, opened))
    {
        env.data().descriptors.opened(fd, base, &path, flags & APPEND != 0);
    }
}

pub fn path_rename(
    mut env: Env<'_>,
    base: i32,
    path: i32,
    length: i32,
    new_base: i32,
    new_path: i32,
    new_length: i32,
) -> Returns {
    let (Some(from), Some(to)) = (text(&env, path, length), text(&env, new_path, new_length)) else {
        return Ok(INVAL);
    };
    let descriptors = env.data().descriptors.clone();
    if let Some(refusal) = refused(&descriptors, (base, &from), (new_base, &to)) {
        return Ok(refusal);
    }
    let errno = original(&mut env, &[base, path, length, new_base, new_path, new_length].map(Value::I32))?;
    if errno == SUCCESS {
        descriptors.renamed((base, &from), (new_base, &to));
    }
    Ok(errno)
}

/// Why one cannot take the other's place, if it is there.
fn refused(descriptors: &Descriptors, from: (i32, &str), to: (i32, &str)) -> Option<i32> {
    let source = descriptors.stat(from.0, from.1, false)?.ok()?;
    let target = descriptors.stat(to.0, to.1, false)?.ok()?;
    match (source.is_dir(), target.is_dir()) {
        (true, false) => Some(NOTDIR),
        (false, true) => Some(ISDIR),
        (true, true) if source.ino() != target.ino() && !descriptors.is_empty(to.0, to.1) => Some(NOTEMPTY),
        _ => None,
    }
}

pub fn path_unlink_file(mut env: Env<'_>, base: i32, path: i32, length: i32) -> Returns {
    let name = text(&env, path, length);
    match name.and_then(|name| env.data().descriptors.stat(base, &name, false)) {
        Some(Ok(found)) if found.is_dir() => Ok(ISDIR),
        _ => original(&mut env, &[base, path, length].map(Value::I32)),
    }
}

pub fn path_remove_directory(mut env: Env<'_>, base: i32, path: i32, length: i32) -> Returns {
    let said = original(&mut env, &[base, path, length].map(Value::I32))?;
    if said != NOENT {
        return Ok(said);
    }
    let name = text(&env, path, length);
    let removed = name.and_then(|name| env.data().descriptors.remove_directory(base, &name));
    Ok(removed.map_or(said, |result| result.map_or_else(errno, |()| SUCCESS)))
}

/// These are hooked for what ``original`` does.
pub fn path_create_directory(mut env: Env<'_>, base: i32, path: i32, length: i32) -> Returns {
    original(&mut env, &[base, path, length].map(Value::I32))
}

pub fn path_symlink(mut env: Env<'_>, old: i32, old_length: i32, base: i32, path: i32, length: i32) -> Returns {
    original(&mut env, &[old, old_length, base, path, length].map(Value::I32))
}

fn errno(error: FsError) -> i32 {
    in_its_words(fs_error_into_wasi_err(error) as i32)
}
