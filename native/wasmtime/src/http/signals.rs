//! The signals that end a server. They stay blocked, in all threads, and are read: there is no handler.

use std::ffi::c_int;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The first ends the app after what is under way, the second at once.
pub const ENDING: [c_int; 2] = [libc::SIGTERM, libc::SIGINT];

/// From now on, so that an early one is not lost. A peer that goes away is one connection's error.
pub fn hold() {
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &set(), std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

pub struct Signals(AsyncFd<OwnedFd>);

impl Signals {
    pub fn new() -> io::Result<Self> {
        let fd = unsafe { libc::signalfd(-1, &set(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }; // it is its own
        Ok(Self(registered.map_err(io::Error::from)?))
    }

    /// Wait for one.
    pub async fn next(&self) {
        let read = |fd: &OwnedFd| {
            let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
            let size = size_of::<libc::signalfd_siginfo>();
            match unsafe { libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), size) } {
                ..0 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        };
        if self.0.async_io(Interest::READABLE, read).await.is_err() {
            std::future::pending::<()>().await; // it cannot be read: then a KILL ends the app
        }
    }
}

fn set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for number in ENDING {
            libc::sigaddset(set.as_mut_ptr(), number);
        }
        set.assume_init()
    }
}
