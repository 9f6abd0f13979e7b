//! What a guest answers, on its way to the client.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use wasmtime_wasi_http::{Error, WasiBody};

use super::activity::UnderWay;

/// What guest and answer are to know of each other.
#[derive(Default)]
pub struct Fate {
    answered: AtomicBool,
    body: Mutex<State>,
    ended: Notify,
}

#[derive(Default)]
struct State {
    under_way: bool,
    /// Its guest trapped: what that has not ended is not whole.
    broken: bool,
    waker: Option<Waker>,
}

impl Fate {
    pub fn answer(&self) {
        self.answered.store(true, Ordering::Release);
    }

    pub fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    /// There is a body that the client has not got wholly.
    pub fn is_under_way(&self) -> bool {
        self.state().under_way
    }

    /// The guest trapped, and still has its resources: its body may end as far as it goes, and breaks off then.
    pub async fn break_off(&self) {
        let waker = {
            let mut state = self.state();
            state.broken = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        while self.state().under_way {
            self.ended.notified().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.body.lock().expect("nobody panics with it")
    }
}

/// A guest that returns with a body left open has ended it; one that traps has not.
pub struct GuestBody {
    body: WasiBody,
    fate: Arc<Fate>,
    /// Given back at the body's end.
    _permit: Option<OwnedSemaphorePermit>,
    _under_way: Option<UnderWay>,
}

impl GuestBody {
    pub fn new(body: WasiBody, fate: Arc<Fate>, permit: Option<OwnedSemaphorePermit>) -> Self {
        fate.state().under_way = true;
        Self { body, fate, _permit: permit, _under_way: None }
    }

    /// A request is under way until its answer's end.
    pub fn of(mut self, request: UnderWay) -> Self {
        self._under_way = Some(request);
        self
    }

    pub fn empty() -> Self {
        let nothing = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
        Self::new(nothing, Arc::default(), None)
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        self.fate.state().under_way = false;
        self.fate.ended.notify_one();
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let ready @ Poll::Ready(_) = Pin::new(&mut self.body).poll_frame(cx) {
            return ready;
        }
        let mut state = self.fate.state();
        if state.broken {
            return Poll::Ready(Some(Err(Error::HttpResponseIncomplete)));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
