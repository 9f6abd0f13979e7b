//! What a client sends, on its way to the guest. One that sends nothing more must not hold a guest that has answered
//! already, whom no other limit ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use wasmtime_wasi_http::handler::Request;
use wasmtime_wasi_http::{Error, WasiBody};

use super::body::Fate;
use crate::clock::{Alarm, Clock};

pub struct Upload {
    body: WasiBody,
    fate: Arc<Fate>,
    clock: Arc<Clock>,
    idle: Duration,
    /// There has been nothing for some time.
    alarm: Option<Alarm>,
}

/// :param idle: how long a guest that has answered waits for more, or up to twice of it
pub fn limited(request: Request, fate: &Arc<Fate>, clock: &Arc<Clock>, idle: Duration) -> Request {
    let (fate, clock) = (fate.clone(), clock.clone());
    request.map(|body| Upload { body, fate, clock, idle, alarm: None }.boxed_unsync())
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.alarm = None;
            return Poll::Ready(frame);
        }
        loop {
            let mut alarm = self.alarm.take().unwrap_or_else(|| self.clock.alarm(Instant::now() + self.idle));
            let rings = Pin::new(&mut alarm).poll(cx);
            self.alarm = rings.is_pending().then_some(alarm);
            ready!(rings);
            if self.fate.has_answered() {
                return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
