//! ``poll_oneoff``, where sockets are concerned: they, the standard streams and clocks can be waited for together.

use std::os::fd::RawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libc::{c_int, c_short, pollfd};

use crate::sockets::{BADF, Done, INVAL, Sockets, again, number, put, taken};

const SUBSCRIPTION: usize = 48;
const EVENT: usize = 32;
const CLOCK: u8 = 0;
const READ: u8 = 1;
const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;
const ABSOLUTE: u16 = 1;
const HANGUP: u16 = 1;

/// What is waited for.
struct Awaited {
    userdata: [u8; 8],
    kind: u8,
    /// The process's descriptor; ``None``: a clock's, or a file's, which is always ready.
    fd: Option<RawFd>,
    /// By the host's monotonic clock.
    deadline: Option<Duration>,
    error: i32,
}

/// Whether a socket is among what is waited for: else the engine's own function is to be called.
pub fn concerns(memory: &[u8], sockets: &Sockets, asked: u32, count: u32) -> bool {
    (0..count as usize).any(|index| {
        let at = asked as usize + index * SUBSCRIPTION;
        matches!(memory.get(at + 8), Some(kind) if *kind != CLOCK)
            && number(memory, at + 16).is_ok_and(|fd| sockets.descriptor(fd).is_some())
    })
}

pub fn oneoff(memory: &mut [u8], sockets: &Sockets, asked: u32, events: u32, count: u32, happened: u32) -> Done {
    let one = |index: usize| awaited(memory, sockets, asked as usize + index * SUBSCRIPTION);
    let all = (0..count as usize).map(one).collect::<Done<Vec<_>>>()?;
    let found = wait(&all)?;
    for (at, (one, flags)) in found.iter().enumerate() {
        put(memory, events + (at * EVENT) as u32, &event(one, *flags))?;
    }
    put(memory, happened, &(found.len() as u32).to_le_bytes())
}

fn awaited(memory: &[u8], sockets: &Sockets, at: usize) -> Done<Awaited> {
    let (userdata, [kind]) = (taken(memory, at)?, taken::<1>(memory, at + 8)?);
    let about = number(memory, at + 16)?;
    let mut made = Awaited { userdata, kind, fd: None, deadline: Some(Duration::ZERO), error: 0 };
    if kind == CLOCK {
        let left = Duration::from_nanos(u64::from_le_bytes(taken(memory, at + 24)?));
        let absolute = u16::from_le_bytes(taken(memory, at + 40)?) & ABSOLUTE != 0;
        match about {
            REALTIME if absolute => made.deadline = now().checked_add(left.saturating_sub(realtime())),
            MONOTONIC if absolute => made.deadline = Some(left),
            REALTIME | MONOTONIC => made.deadline = now().checked_add(left),
            _ => made.error = INVAL,
        }
        return Ok(made);
    }
    made.fd = if about <= 2 { Some(about as RawFd) } else { sockets.descriptor(about) };
    if made.fd.is_some() {
        made.deadline = None;
    }
    Ok(made)
}

/// Wait until something has happened: what, and the host's flags of it.
fn wait(all: &[Awaited]) -> Done<Vec<(&Awaited, c_short)>> {
    let mut polled = all
        .iter()
        .map(|one| pollfd { fd: one.fd.unwrap_or(-1), events: interest(one), revents: 0 })
        .collect::<Vec<_>>();
    let nearest = all.iter().filter_map(|one| one.deadline).min();
    loop {
        let left = nearest.map(|deadline| deadline.saturating_sub(now()));
        // A millisecond more than what is left, but for the last: time must not go by in vain.
        let timeout =
            left.map_or(-1, |left| c_int::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX));
        again(|| unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as _, timeout) } as isize)?;
        let time = now();
        let happened = |(one, polled): (_, &pollfd)| {
            let one: &Awaited = one;
            let ready = polled.revents != 0 || one.deadline.is_some_and(|deadline| deadline <= time);
            ready.then_some((one, polled.revents))
        };
        let found = all.iter().zip(&polled).filter_map(happened).collect::<Vec<_>>();
        if !found.is_empty() {
            return Ok(found);
        }
    }
}

fn interest(one: &Awaited) -> c_short {
    if one.kind == READ { libc::POLLIN } else { libc::POLLOUT }
}

fn event(one: &Awaited, flags: c_short) -> [u8; EVENT] {
    let error = if flags & libc::POLLNVAL != 0 { BADF } else { one.error };
    let waiting = one.fd.filter(|_| one.kind == READ && error == 0).map_or(0, waiting);
    let mut event = [0; EVENT];
    event[..8].copy_from_slice(&one.userdata);
    event[8..10].copy_from_slice(&(error as u16).to_le_bytes());
    event[10] = one.kind;
    event[16..24].copy_from_slice(&waiting.to_le_bytes());
    event[24..26].copy_from_slice(&(if flags & libc::POLLHUP != 0 { HANGUP } else { 0 }).to_le_bytes());
    event
}

/// How many bytes can be read; 1 for a listening socket, which has none to count.
fn waiting(fd: RawFd) -> u64 {
    let mut size: c_int = 0;
    if unsafe { libc::ioctl(fd, libc::FIONREAD, &mut size) } < 0 { 1 } else { size as u64 }
}

fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn realtime() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
