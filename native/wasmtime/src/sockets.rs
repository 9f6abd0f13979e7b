//! Sockets of a module: the listening ones that it is given, and the connections that it has accepted.
//!
//! As ``shimd/wasi/preview1/sockets.py`` has them for the portable host.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, iovec, msghdr};

/// The first descriptor after the standard streams.
pub const FIRST: u32 = 3;
/// Connections' numbers start here: below, descriptors are the engine's, which gives them the lowest free numbers.
const CONNECTIONS: u32 = 1 << 16;

/// WASI's error numbers.
pub const FAULT: i32 = 21;
pub const BADF: i32 = 8;
pub const INVAL: i32 = 28;
const IO: i32 = 29;
const NOTDIR: i32 = 54;
const NOTSUP: i32 = 58;
const SPIPE: i32 = 70;
/// The host's, in WASI's: what sockets give.
const ERRORS: [(c_int, i32); 19] = [
    (libc::EACCES, 2),
    (libc::EAGAIN, 6),
    (libc::EBADF, BADF),
    (libc::ECONNABORTED, 13),
    (libc::ECONNRESET, 15),
    (libc::EINTR, 27),
    (libc::EINVAL, INVAL),
    (libc::EMFILE, 33),
    (libc::EMSGSIZE, 35),
    (libc::ENETDOWN, 38),
    (libc::ENFILE, 41),
    (libc::ENOBUFS, 42),
    (libc::ENOMEM, 48),
    (libc::ENOTCONN, 53),
    (libc::ENOTSOCK, 57),
    (libc::EOPNOTSUPP, NOTSUP),
    (libc::EPERM, 63),
    (libc::EPIPE, 64),
    (libc::ETIMEDOUT, 73),
];

const SOCKET_STREAM: u8 = 6;
const NONBLOCK: u32 = 1 << 2;
/// To read and write, to set flags, to be asked for state and waited for, to shut down and accept.
const RIGHTS: u64 = 1 << 1 | 1 << 3 | 1 << 6 | 1 << 21 | 1 << 27 | 1 << 28 | 1 << 29;
/// Tells them from directories: libraries that look for those go on to the next descriptor.
const PREOPEN_SOCKET: u32 = 1;
const PEEK: u32 = 1;
const WAIT_ALL: u32 = 2;
/// Buffers of one call: the kernel's limit.
const MOST_BUFFERS: usize = 1024;

/// With WASI's error number.
pub type Done<T = ()> = Result<T, i32>;

pub struct Sockets {
    open: BTreeMap<u32, OwnedFd>,
    given: u32,
}

impl Sockets {
    /// # Safety
    /// The descriptors are nobody else's.
    pub unsafe fn new(listening: &[RawFd]) -> Self {
        let owned = listening.iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) });
        Self { open: (FIRST..).zip(owned).collect(), given: listening.len() as u32 }
    }

    /// Whether a number is a socket's, though it may be closed.
    pub fn own(&self, fd: u32) -> bool {
        fd >= CONNECTIONS || fd.wrapping_sub(FIRST) < self.given
    }

    /// The process's descriptor.
    pub fn descriptor(&self, fd: u32) -> Option<RawFd> {
        self.open.get(&fd).map(AsRawFd::as_raw_fd)
    }

    /// Call any function whose first argument is a descriptor, which is a socket's.
    pub fn call(&mut self, name: &str, memory: &mut [u8], fd: u32, arguments: &[u64]) -> i32 {
        match self.descriptor(fd) {
            Some(socket) => self.tried(name, memory, fd, socket, arguments).err().unwrap_or(0),
            None => BADF,
        }
    }

    fn tried(&mut self, name: &str, memory: &mut [u8], fd: u32, socket: RawFd, arguments: &[u64]) -> Done {
        let argument = |at: usize| arguments[at] as u32;
        match name {
            "sock_accept" => self.accept(memory, socket, argument(0), argument(1)),
            "fd_read" => receive(memory, socket, argument(0), argument(1), 0, argument(2)),
            "sock_recv" => {
                receive(memory, socket, argument(0), argument(1), received_how(argument(2)), argument(3))?;
                put(memory, argument(4), &0u16.to_le_bytes())
            }
            "fd_write" => send(memory, socket, argument(0), argument(1), argument(2)),
            "sock_send" => send(memory, socket, argument(0), argument(1), argument(3)),
            "sock_shutdown" => shut_down(socket, argument(0)),
            "fd_close" => {
                self.open.remove(&fd);
                Ok(())
            }
            "fd_renumber" => self.renumber(fd, argument(0)),
            "fd_fdstat_get" => put(memory, argument(0), &fdstat(socket)?),
            "fd_fdstat_set_flags" => set_flags(socket, argument(0)),
            "fd_filestat_get" => put(memory, argument(0), &filestat(socket)?),
            "fd_prestat_get" if fd >= CONNECTIONS => Err(BADF),
            "fd_prestat_get" => put(memory, argument(0), &u64::from(PREOPEN_SOCKET).to_le_bytes()),
            "fd_seek" | "fd_tell" | "fd_pread" | "fd_pwrite" => Err(SPIPE),
            name if name.starts_with("path_") => Err(NOTDIR),
            _ => Err(NOTSUP),
        }
    }

    fn accept(&mut self, memory: &mut [u8], socket: RawFd, flags: u32, opened: u32) -> Done {
        let number = (CONNECTIONS..).find(|number| !self.open.contains_key(number)).ok_or(BADF)?;
        put(memory, opened, &number.to_le_bytes())?; // first: a wrong pointer must not cost a connection
        let how = libc::SOCK_CLOEXEC | if flags & NONBLOCK != 0 { libc::SOCK_NONBLOCK } else { 0 };
        let nobody = std::ptr::null_mut();
        let made = again(|| unsafe { libc::accept4(socket, nobody, nobody.cast(), how) } as isize)?;
        self.open.insert(number, unsafe { OwnedFd::from_raw_fd(made as RawFd) });
        Ok(())
    }

    fn renumber(&mut self, fd: u32, to: u32) -> Done {
        if !self.open.contains_key(&to) {
            return Err(if to < CONNECTIONS { NOTSUP } else { BADF });
        }
        if to != fd
            && let Some(socket) = self.open.remove(&fd)
        {
            self.open.insert(to, socket);
        }
        Ok(())
    }
}

fn received_how(flags: u32) -> c_int {
    let how = if flags & PEEK != 0 { libc::MSG_PEEK } else { 0 };
    how | if flags & WAIT_ALL != 0 { libc::MSG_WAITALL } else { 0 }
}

fn receive(memory: &mut [u8], socket: RawFd, vectors: u32, count: u32, how: c_int, read: u32) -> Done {
    let mut buffers = buffers(memory, vectors, count)?;
    let mut message = message(&mut buffers);
    let size = again(|| unsafe { libc::recvmsg(socket, &mut message, how) })?;
    put(memory, read, &(size as u32).to_le_bytes())
}

fn send(memory: &mut [u8], socket: RawFd, vectors: u32, count: u32, written: u32) -> Done {
    let mut buffers = buffers(memory, vectors, count)?;
    let message = message(&mut buffers);
    let size = again(|| unsafe { libc::sendmsg(socket, &message, libc::MSG_NOSIGNAL) })?;
    put(memory, written, &(size as u32).to_le_bytes())
}

fn message(buffers: &mut [iovec]) -> msghdr {
    let mut message: msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = buffers.as_mut_ptr();
    message.msg_iovlen = buffers.len() as _;
    message
}

/// A list of ``iovec``, in the guest's memory.
fn buffers(memory: &mut [u8], start: u32, count: u32) -> Done<Vec<iovec>> {
    let size = memory.len();
    let one = |at: usize| {
        let (base, length) = (number(memory, start as usize + at * 8)?, number(memory, start as usize + at * 8 + 4)?);
        let inside = (base as usize).checked_add(length as usize).is_some_and(|end| end <= size);
        if inside { Ok((base as usize, length as usize)) } else { Err(FAULT) }
    };
    let found = (0..(count as usize).min(MOST_BUFFERS)).map(one).collect::<Done<Vec<_>>>()?;
    let first = memory.as_mut_ptr();
    let buffer = |(base, length)| iovec { iov_base: unsafe { first.add(base) }.cast(), iov_len: length };
    Ok(found.into_iter().map(buffer).collect())
}

fn shut_down(socket: RawFd, how: u32) -> Done {
    let how = match how {
        1 => libc::SHUT_RD,
        2 => libc::SHUT_WR,
        3 => libc::SHUT_RDWR,
        _ => return Err(INVAL),
    };
    again(|| unsafe { libc::shutdown(socket, how) } as isize).map(drop)
}

fn set_flags(socket: RawFd, flags: u32) -> Done {
    if flags & !NONBLOCK != 0 {
        return Err(INVAL);
    }
    let now = again(|| unsafe { libc::fcntl(socket, libc::F_GETFL) } as isize)? as c_int & !libc::O_NONBLOCK;
    let then = if flags & NONBLOCK != 0 { now | libc::O_NONBLOCK } else { now };
    again(|| unsafe { libc::fcntl(socket, libc::F_SETFL, then) } as isize).map(drop)
}

fn fdstat(socket: RawFd) -> Done<[u8; 24]> {
    let now = again(|| unsafe { libc::fcntl(socket, libc::F_GETFL) } as isize)? as c_int;
    let mut stat = [0; 24];
    stat[0] = SOCKET_STREAM;
    stat[2] = if now & libc::O_NONBLOCK != 0 { NONBLOCK as u8 } else { 0 };
    stat[8..16].copy_from_slice(&RIGHTS.to_le_bytes());
    stat[16..].copy_from_slice(&RIGHTS.to_le_bytes());
    Ok(stat)
}

fn filestat(socket: RawFd) -> Done<[u8; 64]> {
    let mut found = MaybeUninit::<libc::stat>::zeroed();
    again(|| unsafe { libc::fstat(socket, found.as_mut_ptr()) } as isize)?;
    let found = unsafe { found.assume_init() };
    let mut stat = [0; 64];
    stat[..8].copy_from_slice(&found.st_dev.to_le_bytes());
    stat[8..16].copy_from_slice(&found.st_ino.to_le_bytes());
    stat[16] = SOCKET_STREAM;
    stat[24] = 1;
    Ok(stat)
}

/// A system call's result, made again if a signal has interrupted it.
pub fn again(mut call: impl FnMut() -> isize) -> Done<isize> {
    loop {
        let result = call();
        if result >= 0 {
            return Ok(result);
        }
        let error = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        if error != libc::EINTR {
            return Err(ERRORS.iter().find(|(host, _)| *host == error).map_or(IO, |(_, number)| *number));
        }
    }
}

pub fn put(memory: &mut [u8], at: u32, bytes: &[u8]) -> Done {
    let at = at as usize;
    memory.get_mut(at..at + bytes.len()).ok_or(FAULT)?.copy_from_slice(bytes);
    Ok(())
}

pub fn number(memory: &[u8], at: usize) -> Done<u32> {
    taken::<4>(memory, at).map(u32::from_le_bytes)
}

pub fn taken<const SIZE: usize>(memory: &[u8], at: usize) -> Done<[u8; SIZE]> {
    let bytes = memory.get(at..at + SIZE).ok_or(FAULT)?;
    Ok(bytes.try_into().expect("it is so long"))
}
