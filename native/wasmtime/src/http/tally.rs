//! What an app has answered, in numbers: a file in memory, which the daemon reads (``shimd/formats/tally.py``).

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;

const NAME: &std::ffi::CStr = c"shimd-http";
const MAGIC: [u8; 16] = *b"shimd-http 1\0\0\0\0";
const SIZE: usize = 256;
/// Microseconds that a request of a bucket takes at most; of the last there is no such limit.
const BOUNDS: [u64; 13] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

#[repr(C)]
struct Counts {
    magic: [u8; 16],
    /// From 1xx to 5xx.
    classes: [AtomicU64; 5],
    microseconds: AtomicU64,
    buckets: [AtomicU64; BOUNDS.len() + 1],
}

/// Lives as long as this process.
pub struct Tally(NonNull<Counts>);

unsafe impl Send for Tally {}
unsafe impl Sync for Tally {}

impl Tally {
    /// ``None``: the kernel gives no such file; an app need not be counted.
    pub fn new() -> Option<Self> {
        const { assert!(size_of::<Counts>() <= SIZE) };
        let fd = unsafe { libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 || unsafe { libc::ftruncate(fd, SIZE as libc::off_t) } < 0 {
            return None;
        }
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let mapped = unsafe { libc::mmap(ptr::null_mut(), SIZE, access, kind, fd, 0) };
        if mapped == libc::MAP_FAILED {
            return None;
        }
        let counts = NonNull::new(mapped.cast::<Counts>())?;
        unsafe { (*counts.as_ptr()).magic = MAGIC };
        Some(Self(counts))
    }

    pub fn count(&self, status: StatusCode, time: Duration) {
        let counts = unsafe { self.0.as_ref() };
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        counts.classes[class].fetch_add(1, Relaxed);
        counts.microseconds.fetch_add(microseconds, Relaxed);
        counts.buckets[BOUNDS.partition_point(|bound| *bound < microseconds)].fetch_add(1, Relaxed);
    }
}
