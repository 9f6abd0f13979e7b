//! Whether a connection is used. One that is not is closed, whatever a client sends that is no request: nothing, the
//! beginning of one, or frames of HTTP/2 that are answered without end. So is one whose client does not take its answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The requests of a connection.
#[derive(Default)]
pub struct Activity {
    under_way: AtomicUsize,
    /// How many there have been.
    begun: AtomicUsize,
    /// Answers of which there is more than the client takes.
    offered: AtomicUsize,
    /// How often it has taken something of them.
    taken: AtomicUsize,
}

impl Activity {
    /// One more, until what is returned is dropped.
    pub fn request(self: Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.begun.fetch_add(1, Ordering::AcqRel);
        UnderWay { of: self, offers: false }
    }

    pub fn is_none(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }

    /// Wait until there has been none for this time, or for up to twice of it: requests set no timers.
    pub async fn none_for(&self, time: Duration) {
        self.unchanged_for(time, |it| it.is_none().then(|| it.begun.load(Ordering::Acquire))).await;
    }

    /// Wait until a client has taken nothing of what it is offered for this time, or for up to twice of it.
    pub async fn not_taken_for(&self, time: Duration) {
        let offers = |it: &Self| it.offered.load(Ordering::Acquire) > 0;
        self.unchanged_for(time, |it| offers(it).then(|| it.taken.load(Ordering::Acquire))).await;
    }

    async fn unchanged_for(&self, time: Duration, look: impl Fn(&Self) -> Option<usize>) {
        let mut before = look(self);
        loop {
            tokio::time::sleep(time).await;
            let now = look(self);
            if now.is_some() && now == before {
                return;
            }
            before = now;
        }
    }
}

pub struct UnderWay {
    of: Arc<Activity>,
    offers: bool,
}

impl UnderWay {
    /// There is a part of the answer; it is taken when somebody asks for the next.
    pub fn offer(&mut self) {
        if !self.offers {
            self.offers = true;
            self.of.offered.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub fn take(&mut self) {
        if self.offers {
            self.offers = false;
            self.of.taken.fetch_add(1, Ordering::AcqRel);
            self.of.offered.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.take();
        self.of.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}
