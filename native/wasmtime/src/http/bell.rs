//! A waker that who polls rings for itself. Whoever polls several things that wake each other would be woken by that, after
//! it has seen all of it: the runtime has to poll it once more, and wakes another thread to help with that.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

#[derive(Default)]
pub struct Bell {
    rung: AtomicBool,
    /// Whoever is to be woken; ``None``: it looks for itself.
    waker: Mutex<Option<Waker>>,
}

impl Bell {
    /// From now on it is looked at.
    pub fn hold(&self) {
        self.waker().take();
        self.hush();
    }

    pub fn hush(&self) {
        self.rung.store(false, SeqCst);
    }

    pub fn is_rung(&self) -> bool {
        self.rung.load(SeqCst)
    }

    /// There is nothing to be done until it rings, which wakes whoever polls.
    pub fn wait<T>(&self, cx: &Context<'_>) -> Poll<T> {
        *self.waker() = Some(cx.waker().clone());
        if self.is_rung() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().expect("nobody panics with it")
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, SeqCst);
        let waker = self.waker().take(); // the lock is let go of before it wakes
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
