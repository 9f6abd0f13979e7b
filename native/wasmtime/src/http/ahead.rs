//! What a guest of WASI 0.3 streams, taken by its instance before the connection asks for it: the crate has room for one
//! part, and after each the one would wake the other, on another thread.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use wasmtime_wasi_http::{Error, WasiBody};

/// Bytes, and parts, however small; one part more may be taken.
const MOST: usize = 64 * 1024;
const MOST_PARTS: usize = 64;
/// Parts that the connection has of the body itself: a short answer is not for two to take.
const FIRST: usize = 2;
/// Bytes; what is as long as that is worth a wake, and goes straight to the connection.
const LONG: usize = 16 * 1024;

type Part = Result<Frame<Bytes>, Error>;

/// Of an instance.
#[derive(Default)]
pub struct Bodies {
    halves: Mutex<Vec<Ahead>>,
    polled: AtomicBool,
}

impl Bodies {
    /// Takes one half of a body; the other is the connection's.
    pub fn share(&self, body: WasiBody) -> WasiBody {
        let state = State {
            body,
            parts: VecDeque::new(),
            held: 0,
            given: 0,
            last: 0,
            ended: false,
            instance: true,
            taker: None,
            connection: None,
        };
        let shared = Arc::new(Shared { task: AtomicU8::new(TAKE), state: Mutex::new(state) });
        self.lock().push(Ahead(shared.clone()));
        Taken(shared).boxed_unsync()
    }

    /// Take what is there: in the midst of the instance, whose guest can go on at once then.
    pub fn poll(&self, cx: &mut Context<'_>) {
        self.polled.store(true, Ordering::Release);
        self.lock().retain(|body| body.poll(cx).is_pending());
    }

    /// After each poll of the instance: nothing in its midst is polled while its guest computes, or waits in a call of
    /// WASI 0.2.
    pub fn poll_else(&self, cx: &mut Context<'_>) {
        if !self.polled.swap(false, Ordering::AcqRel) {
            self.lock().retain(|body| body.poll(cx).is_pending());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Ahead>> {
        self.halves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the instance is to do: nothing, until the waker is used that it has left (it is one task all its life, so that one
/// stays good); to take what is there; or to let go of its half.
const WAIT: u8 = 0;
const TAKE: u8 = 1;
const END: u8 = 2;

struct Shared {
    /// Looked at each time that the instance is polled, which short answers are not to hold up. Changed with the lock held.
    task: AtomicU8,
    state: Mutex<State>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_to(&self, task: u8) {
        self.task.store(task, Ordering::Release);
    }
}

struct State {
    body: WasiBody,
    /// What the instance has taken.
    parts: VecDeque<Part>,
    /// Their bytes.
    held: usize,
    /// How many the connection has had.
    given: usize,
    /// Bytes of the last one.
    last: usize,
    ended: bool,
    /// It is there.
    instance: bool,
    /// An instance that waits for room.
    taker: Option<Waker>,
    /// That waits for a part.
    connection: Option<Waker>,
}

impl State {
    /// The instance is to take them, and the connection does not ask for them itself: one waker is all that a body has.
    fn ahead(&self) -> bool {
        self.instance && self.given >= FIRST && self.last < LONG
    }

    fn has_room(&self) -> bool {
        self.held < MOST && self.parts.len() < MOST_PARTS
    }

    /// So much that it is worth to wake the instance.
    fn has_much_room(&self) -> bool {
        self.held < MOST / 2 && self.parts.len() < MOST_PARTS / 2
    }

    /// Take all that is there and has room; returns whether there is room for more.
    fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        while self.has_room() {
            let Poll::Ready(part) = Pin::new(&mut self.body).poll_frame(cx) else { return true };
            self.ended = !matches!(part, Some(Ok(_)));
            if let Some(part) = part {
                self.held += length(&part);
                self.parts.push_back(part);
            }
            if self.ended {
                return true;
            }
        }
        false
    }

    fn next(&mut self) -> Option<Part> {
        let part = self.parts.pop_front()?;
        self.held -= length(&part);
        Some(part)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn length(part: &Part) -> usize {
    part.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len)
}

/// The instance's half. Without it the connection asks for the rest itself.
struct Ahead(Arc<Shared>);

impl Ahead {
    /// Take what is there, until there is no more to take.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.0.task.load(Ordering::Acquire) {
            WAIT => return Poll::Pending,
            END => return Poll::Ready(()),
            _ => {}
        }
        let mut state = self.0.lock();
        if state.ended {
            return Poll::Ready(());
        }
        if !(state.ahead() && state.fill(cx)) {
            state.taker = Some(cx.waker().clone());
            self.0.is_to(WAIT);
        }
        if state.ended {
            return Poll::Ready(());
        }
        let waker = if state.parts.is_empty() { None } else { state.connection.take() };
        drop(state); // before it wakes
        wake(waker);
        Poll::Pending
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.lock();
            state.instance = false;
            state.taker = None;
            state.connection.take()
        };
        wake(waker);
    }
}

/// The connection's half.
struct Taken(Arc<Shared>);

impl Body for Taken {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Part>> {
        let mut state = self.0.lock();
        let before = state.ahead();
        let part = match state.next() {
            Some(part) => Poll::Ready(Some(part)),
            None if state.ended => Poll::Ready(None),
            None if before => {
                state.connection = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Pin::new(&mut state.body).poll_frame(cx),
        };
        match &part {
            Poll::Ready(Some(part @ Ok(_))) => {
                state.given += 1;
                state.last = length(part);
            }
            Poll::Ready(_) if state.parts.is_empty() => state.ended = true,
            _ => {}
        }
        let mut waker = None;
        if state.ended {
            self.0.is_to(END); // when it is polled next
        } else if state.ahead() && (!before || state.has_much_room()) && state.taker.is_some() {
            self.0.is_to(TAKE); // there is room again, or it is to begin
            waker = state.taker.take();
        }
        drop(state);
        wake(waker);
        part
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.lock();
        state.parts.is_empty() && (state.ended || state.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.0.lock();
        let rest = if state.ended { SizeHint::with_exact(0) } else { state.body.size_hint() };
        let held = state.held as u64;
        let mut hint = SizeHint::default();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held);
        }
        hint.set_lower(rest.lower() + held);
        hint
    }
}

impl Drop for Taken {
    /// Nobody wants the rest, which its guest is to be told.
    fn drop(&mut self) {
        let body = {
            let mut state = self.0.lock();
            state.ended = true;
            state.parts.clear();
            state.held = 0;
            let nothing = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
            self.0.is_to(END);
            std::mem::replace(&mut state.body, nothing)
        };
        drop(body); // which may wake somebody
    }
}
