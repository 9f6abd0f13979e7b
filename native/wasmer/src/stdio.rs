//! The process's own descriptors 0, 1 and 2 as the guest's.

use std::io::{self, SeekFrom};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, Interest, ReadBuf};
use tokio::runtime::Handle;
use virtual_fs::{FsError, Result, VirtualFile};

use crate::runtime::Tasks;

/// A descriptor that is read from only once something is there, so that a guest that waits for it can be woken by something
/// else (a signal of its own, its end); written to, it blocks as it is.
#[derive(Debug)]
pub struct Stdio {
    fd: RawFd,
    tasks: Tasks,
    watch: Watch,
}

#[derive(Debug)]
enum Watch {
    NotYet,
    By(AsyncFd<RawFd>),
    /// A file, or a device that is always ready.
    Never,
}

impl Stdio {
    pub fn new(fd: RawFd, tasks: Tasks) -> Self {
        Self { fd, tasks, watch: Watch::NotYet }
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.watch, Watch::NotYet) && !is_ready(self.fd, libc::POLLIN) {
            self.watch = watch(self.fd, &self.tasks.handle());
        }
        let Watch::By(watch) = &self.watch else { return Poll::Ready(Ok(())) };
        loop {
            let mut guard = ready!(watch.poll_read_ready(cx))?;
            if is_ready(self.fd, libc::POLLIN) {
                return Poll::Ready(Ok(()));
            }
            guard.clear_ready();
        }
    }
}

fn watch(fd: RawFd, handle: &Handle) -> Watch {
    let _entered = handle.enter();
    // Sound: the descriptor stays open as long as the process.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_or(Watch::Never, Watch::By)
}

fn is_ready(fd: RawFd, events: i16) -> bool {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    unsafe { libc::poll(&mut poll, 1, 0) != 0 }
}

fn wait_for(fd: RawFd, events: i16) {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    unsafe { libc::poll(&mut poll, 1, -1) };
}

/// What a terminal that is shared, and was made non-blocking by somebody else, refuses, waits.
fn blocking(fd: RawFd, events: i16, call: impl Fn() -> isize) -> io::Result<usize> {
    loop {
        let count = call();
        if count >= 0 {
            return Ok(count as usize);
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => wait_for(fd, events),
            error if error.kind() == io::ErrorKind::Interrupted => (),
            error => return Err(error),
        }
    }
}

/// Whether a descriptor of the process is a terminal.
pub fn is_terminal(fd: RawFd) -> bool {
    rustix::termios::isatty(unsafe { BorrowedFd::borrow_raw(fd) })
}

impl VirtualFile for Stdio {
    fn last_accessed(&self) -> u64 {
        0
    }

    fn last_modified(&self) -> u64 {
        0
    }

    fn created_time(&self) -> u64 {
        0
    }

    fn size(&self) -> u64 {
        0
    }

    fn set_len(&mut self, _new_size: u64) -> Result<()> {
        Err(FsError::PermissionDenied)
    }

    fn unlink(&mut self) -> Result<()> {
        Ok(())
    }

    fn get_special_fd(&self) -> Option<u32> {
        Some(self.fd as u32)
    }

    fn poll_read_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.poll_readable(cx))?;
        let mut count: libc::c_int = 0;
        unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::FIONREAD, &mut count) };
        Poll::Ready(Ok(count.max(0) as usize))
    }

    fn poll_write_ready(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(8192))
    }
}

impl AsyncRead for Stdio {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_readable(cx))?;
        let (fd, space) = (self.fd, buf.initialize_unfilled());
        let count = blocking(fd, libc::POLLIN, || unsafe { libc::read(fd, space.as_ptr() as *mut _, space.len()) })?;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let fd = self.fd;
        Poll::Ready(blocking(fd, libc::POLLOUT, || unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) }))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for Stdio {
    fn start_seek(self: Pin<&mut Self>, _position: SeekFrom) -> io::Result<()> {
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(0))
    }
}
