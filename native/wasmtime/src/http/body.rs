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
    answer: Mutex<State>,
    ended: Notify,
}

#[derive(Default)]
struct State {
    awaited: bool,
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

    /// Somebody waits for the answer, or for the rest of its body, until what is returned is dropped.
    pub fn awaited(self: Arc<Self>) -> Awaited {
        self.state().awaited = true;
        Awaited(self)
    }

    pub fn is_awaited(&self) -> bool {
        self.state().awaited
    }

    /// The guest trapped, and still has its resources: its body may end as far as it goes, and breaks off then.
    /// An answer that is not yet where it goes has a body, too.
    pub async fn break_off(&self) {
        let waker = {
            let mut state = self.state();
            state.broken = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        while self.is_awaited() {
            self.ended.notified().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.answer.lock().expect("nobody panics with it")
    }
}

pub struct Awaited(Arc<Fate>);

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.state().awaited = false;
        self.0.ended.notify_one();
    }
}

/// A guest that returns with a body left open has ended it; one that traps has not.
pub struct GuestBody {
    body: WasiBody,
    awaited: Awaited,
    /// Given back at the body's end.
    _permit: Option<OwnedSemaphorePermit>,
    request: Option<UnderWay>,
}

impl GuestBody {
    pub fn new(body: WasiBody, awaited: Awaited, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { body, awaited, _permit: permit, request: None }
    }

    /// A request is under way until its answer's end.
    pub fn of(mut self, request: UnderWay) -> Self {
        self.request = Some(request);
        self
    }

    pub fn empty() -> Self {
        let nothing = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
        Self::new(nothing, Arc::<Fate>::default().awaited(), None)
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(request) = &mut self.request {
            request.take();
        }
        let broken = {
            let mut state = self.awaited.0.state();
            state.waker = Some(cx.waker().clone());
            state.broken // before the body is asked: of one that has ended by then nothing is missing
        };
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(_))), Some(request)) = (&frame, &mut self.request) {
            request.offer();
        }
        match frame {
            Poll::Pending if broken => Poll::Ready(Some(Err(Error::HttpResponseIncomplete))),
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
