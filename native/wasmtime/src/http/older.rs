//! WASI 0.2: a fresh instance for each request.

use std::future::{self, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use http::Response;
use http::header::CONTENT_LENGTH;
use tokio::runtime::Handle;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wasmtime::Store;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::handler::Request;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

use super::bell::Bell;
use super::body::{Fate, GuestBody};
use super::upload::limited;
use super::{NoAnswer, computes, report, too_late};
use crate::clock::{Clock, Computing, Running, let_others_run};
use crate::host::{Host, World};

pub struct Older {
    pub pre: ProxyPre<Host>,
    pub world: World,
    pub timeout: Option<Duration>,
    pub idle: Duration,
    pub clock: Arc<Clock>,
}

/// What a guest does, to its end: by whoever waits for its answer, which needs no other thread to wake up, as far as it
/// comes without waiting itself, so that a short answer goes out whole; and from then on, if it has not ended, by itself.
struct Guest(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Guest {
    fn of(run: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(Box::pin(run)))
    }
}

impl Future for Guest {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(run) = &mut self.0 else { return Poll::Ready(()) };
        ready!(run.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let (Some(run), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(run);
        }
    }
}

/// Why a guest has not come to its end.
enum Ended {
    Failed(wasmtime::Error),
    Late,
    /// Without an end, after its answer.
    Computes,
}

/// Where the answer goes, once.
type Sender = Arc<Mutex<Option<oneshot::Sender<Answer>>>>;
type Receiver = oneshot::Receiver<Answer>;
type Answer = Result<Response<GuestBody>, NoAnswer>;

impl Older {
    pub async fn answer(self: &Arc<Self>, request: Request, permit: OwnedSemaphorePermit) -> Answer {
        let (sender, mut receiver) = oneshot::channel();
        let fate = Arc::<Fate>::default();
        let request = limited(request, &fate, &self.clock, self.idle);
        let mut guest = Guest::of(self.clone().run(request, Arc::new(Mutex::new(Some(sender))), fate, permit));
        let (bell, mut answer) = (Arc::<Bell>::default(), None);
        let waker = Waker::from(bell.clone());
        poll_fn(|cx| {
            let own = &mut Context::from_waker(&waker);
            bell.hold();
            loop {
                let ended = Pin::new(&mut guest).poll(own).is_ready();
                let Some(mut response) = answer.take().map_or_else(|| came(&mut receiver), Some) else {
                    return bell.wait(cx);
                };
                bell.hush();
                let more = response.as_mut().is_ok_and(|it| it.body_mut().begin(own));
                if ended || !more || !bell.is_rung() {
                    return Poll::Ready(response);
                }
                answer = Some(response); // it waits for no more than that its body is taken
            }
        })
        .await
    }

    /// A guest, from its beginning to its end, whoever waits for its answer.
    async fn run(self: Arc<Self>, request: Request, sender: Sender, fate: Arc<Fate>, permit: OwnedSemaphorePermit) {
        let _running: Running = self.clock.running();
        let mut computing = Computing::default();
        let mut call = pin!(self.call(request, sender.clone(), fate.clone(), computing.another()));
        let call = poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Pending if self.computes(computing.time()) && fate.is_over() => Poll::Ready(Err(Ended::Computes)),
            result => result.map_err(Ended::Failed),
        });
        let outcome = tokio::select! {
            biased;
            result = call => result,
            () = self.expire(&fate) => Err(Ended::Late),
        };
        let why = match outcome {
            Ok(store) => {
                tokio::spawn(async move {
                    drop(store); // which takes its time: after the answer is on its way
                    drop(permit);
                });
                NoAnswer::Failed // unless it has answered
            }
            Err(Ended::Late) => too_late(&self.world.name, self.timeout),
            Err(Ended::Computes) => {
                computes(&self.world.name, self.timeout.unwrap_or_default());
                NoAnswer::Failed // nobody waits for it
            }
            Err(Ended::Failed(error)) => {
                report(&self.world.name, &error);
                NoAnswer::Failed
            }
        };
        if let Some(sender) = sender.lock().expect("nobody panics with it").take() {
            let _ = sender.send(Err(why));
        }
    }

    async fn call(
        &self,
        mut request: Request,
        sender: Sender,
        fate: Arc<Fate>,
        computing: Computing,
    ) -> wasmtime::Result<Store<Host>> {
        let mut store = self.world.store(self.pre.engine(), request.extensions_mut().remove());
        let_others_run(&mut store, &computing);
        let proxy = self.pre.instantiate_async(&mut store).await?;
        let request = store.data_mut().of_client().new_incoming_request(Scheme::Http, request)?;
        let answered = fate.clone();
        let out = store.data_mut().http().new_response_outparam_from_callback(move |response| {
            answered.answer();
            if let Some(sender) = sender.lock().expect("nobody panics with it").take() {
                let whole = response.map(|it| {
                    let said = it.headers().contains_key(CONTENT_LENGTH);
                    it.map(|body| GuestBody::new(body, answered.awaited(), None).said(said))
                });
                let _ = sender.send(whole.map_err(|_| NoAnswer::Failed));
            }
        })?;
        let result = proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await;
        if result.is_err() {
            fate.break_off().await; // the body would end with the store
        }
        result.map(|()| store)
    }

    /// For too long, where nobody waits for it.
    fn computes(&self, time: Option<Duration>) -> bool {
        time.is_some_and(|time| self.timeout.is_some_and(|most| time >= most))
    }

    async fn expire(&self, fate: &Fate) {
        if let Some(timeout) = self.timeout {
            self.clock.alarm(Instant::now() + timeout).await;
            if !fate.has_answered() {
                return;
            }
        }
        future::pending().await
    }
}

/// The answer; ``None``: not yet.
fn came(receiver: &mut Receiver) -> Option<Answer> {
    match receiver.try_recv() {
        Ok(answer) => Some(answer),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Closed) => Some(Err(NoAnswer::Failed)),
    }
}
