//! Whether a connection is used. One that is not is closed, whatever a client sends that is no request: nothing, the
//! beginning of one, or frames of HTTP/2 that are answered without end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The requests of a connection.
#[derive(Default)]
pub struct Activity {
    under_way: AtomicUsize,
    /// How many there have been.
    begun: AtomicUsize,
}

impl Activity {
    /// One more, until what is returned is dropped.
    pub fn request(self: Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.begun.fetch_add(1, Ordering::AcqRel);
        UnderWay(self)
    }

    /// Wait until there has been none for this time, or for up to twice of it: requests set no timers.
    pub async fn none_for(&self, time: Duration) {
        loop {
            let before = self.begun.load(Ordering::Acquire);
            let idle = self.under_way.load(Ordering::Acquire) == 0;
            tokio::time::sleep(time).await;
            if idle && self.begun.load(Ordering::Acquire) == before {
                return;
            }
        }
    }
}

pub struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}
