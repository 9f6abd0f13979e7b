//! What a guest answers, on its way to the client.

use std::any::Any;
use std::collections::VecDeque;
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

/// What an answer may begin with before anybody has asked for its body, and one part more.
const SHORT: usize = 32 * 1024;

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

    /// It has been answered, and nobody waits for the rest.
    pub fn is_over(&self) -> bool {
        self.has_answered() && !self.is_awaited()
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
    /// What was there before it was asked for, of so many bytes.
    first: VecDeque<Result<Frame<Bytes>, Error>>,
    held: usize,
    /// There is no more than that.
    ended: bool,
    breaks: bool,
    /// Its length is said in its headers: hyper checks it, as long as it knows no other.
    said: bool,
    /// Given back at the body's end.
    _permit: Option<OwnedSemaphorePermit>,
    request: Option<UnderWay>,
    /// What ends with it.
    _kept: Option<Box<dyn Any + Send + Sync>>,
}

impl GuestBody {
    pub fn new(body: WasiBody, awaited: Awaited, permit: Option<OwnedSemaphorePermit>) -> Self {
        let first = VecDeque::new();
        Self {
            body,
            awaited,
            first,
            held: 0,
            ended: false,
            breaks: false,
            said: false,
            _permit: permit,
            request: None,
            _kept: None,
        }
    }

    /// Take what is there of it, and is not long; returns whether there was something.
    pub fn begin(&mut self, cx: &mut Context<'_>) -> bool {
        let before = (self.first.len(), self.ended);
        while !self.ended && self.held < SHORT {
            match self.next(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(frame)) => {
                    self.ended = frame.is_err();
                    self.held += length(&frame).unwrap_or_default();
                    self.first.push_back(frame);
                }
            }
        }
        before != (self.first.len(), self.ended)
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let broken = {
            let mut state = self.awaited.0.state();
            state.waker = Some(cx.waker().clone());
            state.broken // before the body is asked: of one that has ended by then nothing is missing
        };
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending if broken => Poll::Ready(Some(Err(Error::HttpResponseIncomplete))),
            frame => frame,
        }
    }

    /// Its headers have a length, which a guest that leaves it open need not have written.
    pub fn said(mut self, said: bool) -> Self {
        self.said = said;
        self
    }

    /// A request is under way until its answer's end.
    pub fn of(mut self, request: UnderWay) -> Self {
        self.request = Some(request);
        self
    }

    pub fn keeping(mut self, what: Box<dyn Any + Send + Sync>) -> Self {
        self._kept = Some(what);
        self
    }

    pub fn empty() -> Self {
        Self::whole(Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync())
    }

    /// No guest's.
    pub fn whole(body: WasiBody) -> Self {
        Self::new(body, Arc::<Fate>::default().awaited(), None)
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(request) = &mut self.request {
            request.take();
        }
        let frame = match self.first.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None if self.ended => Poll::Ready(None),
            None => self.next(cx),
        };
        let frame = match frame {
            Poll::Ready(Some(Err(error))) if !self.breaks => {
                self.breaks = true; // when what came before it has gone out
                self.first.push_front(Err(error));
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            frame => frame,
        };
        if let (Poll::Ready(Some(Ok(_))), Some(request)) = (&frame, &mut self.request) {
            request.offer();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && (self.ended && !(self.said && self.held == 0) || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.said {
            return self.body.size_hint();
        }
        let Some(held) = self.first.iter().map(length).sum::<Option<usize>>() else { return SizeHint::default() };
        let (held, rest) = (held as u64, if self.ended { SizeHint::with_exact(0) } else { self.body.size_hint() });
        let mut hint = SizeHint::default();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held);
        }
        hint.set_lower(rest.lower() + held);
        hint
    }
}

/// Of data; ``None``: it is none.
fn length(frame: &Result<Frame<Bytes>, Error>) -> Option<usize> {
    frame.as_ref().ok().and_then(|frame| frame.data_ref()).map(Bytes::len)
}
