//! WASI 0.3: instances are used again, and by several requests at a time, as ``wasmtime serve`` does.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::GuestTaskId;
use wasmtime::{Store, StoreContextMut};
use wasmtime_wasi_http::handler::{
    ExpirationError, HandlerState, Instance, InstantiationError, Proxy, ProxyHandler, Request, ShouldAccept,
    TrapOrPanicError, WorkerExpiration, WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::body::{Fate, GuestBody};
use super::{NoAnswer, report, too_late};
use crate::clock::{Alarm, Clock, Running, let_others_run};
use crate::host::{Host, World};

/// Requests in one instance at a time, as of ``wasmtime serve``.
const AT_A_TIME: usize = 16;
/// How long an instance that does nothing is kept, likewise.
const IDLE: Duration = Duration::from_secs(1);
const NEVER: Duration = Duration::from_secs(86400 * 365);

pub struct Newer {
    handler: ProxyHandler<Instances>,
    name: Arc<str>,
    timeout: Option<Duration>,
    clock: Arc<Clock>,
}

impl Newer {
    pub fn new(instances: Instances) -> Self {
        let (timeout, clock) = (instances.timeout, instances.clock.clone());
        let name = instances.world.name.as_str().into();
        Self { handler: ProxyHandler::new(instances), name, timeout, clock }
    }

    pub async fn answer(
        &self,
        request: Request,
        permit: OwnedSemaphorePermit,
    ) -> Result<http::Response<GuestBody>, NoAnswer> {
        let fate = Arc::<Fate>::default();
        let (begun, awaited) = (Instant::now(), fate.clone().awaited());
        // Its instance ends it, too, but not before it is in one.
        let answer = self.clock.within(self.timeout, self.handler.handle(fate, request)).await;
        match answer.unwrap_or_else(|| Err(ExpirationError.into())) {
            Ok(response) => Ok(response.map(|body| GuestBody::new(body, awaited, Some(permit)))),
            Err(error) if is_late(&error) => Err(too_late(&self.name, self.timeout)),
            Err(error) if error.is::<TrapOrPanicError>() => Err(self.why(begun)), // it is told when the instance ends
            Err(error) => {
                report(&self.name, &error);
                Err(NoAnswer::Failed)
            }
        }
    }

    /// Why there is no answer of an instance that has ended.
    fn why(&self, begun: Instant) -> NoAnswer {
        match self.timeout {
            Some(timeout) if begun.elapsed() >= timeout => too_late(&self.name, self.timeout),
            _ => NoAnswer::Failed,
        }
    }
}

/// It was not answered in time, or its instance was not made in time: both end with the same tick.
fn is_late(error: &wasmtime::Error) -> bool {
    let making = error.downcast_ref::<InstantiationError<Arc<Fate>>>();
    error.is::<ExpirationError>() || making.is_some_and(|it| it.error.is::<ExpirationError>())
}

pub struct Instances {
    pub pre: ServicePre<Host>,
    pub world: World,
    pub timeout: Option<Duration>,
    /// Requests that an instance has, one after the other.
    pub reuse: usize,
    pub clock: Arc<Clock>,
}

impl HandlerState for Instances {
    type StoreData = Host;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<Host, Expiration, Worker>> {
        let running = self.clock.running();
        let mut store = self.world.store(self.pre.engine());
        let_others_run(&mut store);
        let (timeout, given) = (self.timeout.unwrap_or(NEVER), Arc::<Given>::default());
        let made = self.clock.within(self.timeout, self.pre.instantiate_async(&mut store)).await;
        let proxy = Proxy::P3(made.ok_or(ExpirationError)??);
        Ok(Instance {
            store,
            proxy,
            view: Host::of_client,
            expiration: Expiration { timeout, alarm: self.clock.alarm(Instant::now()), given: given.clone() },
            state: Worker { name: self.world.name.clone(), timeout, reuse: self.reuse, given, running },
        })
    }
}

/// The requests that an instance has been given.
#[derive(Default)]
struct Given {
    /// One has not been answered in time: the instance gets no more.
    late: AtomicBool,
    fates: Mutex<Vec<Weak<Fate>>>,
}

impl Given {
    fn add(&self, fate: &Arc<Fate>) {
        let mut fates = self.fates.lock().expect("nobody panics with it");
        fates.retain(|fate| fate.strong_count() > 0);
        fates.push(Arc::downgrade(fate));
    }

    fn is_late(&self) -> bool {
        self.late.load(Ordering::Acquire)
    }

    /// There are answers on their way, which the instance is still to write.
    fn is_answering(&self) -> bool {
        self.fates().iter().any(|fate| fate.is_awaited())
    }

    /// Of those that somebody waits for, or that are on their way.
    fn fates(&self) -> Vec<Arc<Fate>> {
        self.fates.lock().expect("nobody panics with it").iter().filter_map(Weak::upgrade).collect()
    }
}

/// When an instance ends whose guest does not let it.
pub struct Expiration {
    timeout: Duration,
    alarm: Alarm,
    given: Arc<Given>,
}

impl WorkerExpiration for Expiration {
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>, status: WorkerStatus, start: Instant) -> Poll<()> {
        let after = match status {
            WorkerStatus::Idle => IDLE,
            WorkerStatus::Requests => self.timeout,
            WorkerStatus::PostReturn if !self.given.is_late() => return Poll::Pending, // it has answered: it takes its time
            WorkerStatus::PostReturn if !self.given.is_answering() => return Poll::Ready(()),
            WorkerStatus::PostReturn => {
                self.alarm.reset(Instant::now() + IDLE);
                return Pin::new(&mut self.alarm).poll(cx);
            }
        };
        self.alarm.reset(start + after);
        Pin::new(&mut self.alarm).poll(cx)
    }
}

pub struct Worker {
    name: String,
    timeout: Duration,
    reuse: usize,
    given: Arc<Given>,
    running: Running,
}

impl WorkerState for Worker {
    type StoreData = Host;
    type RequestData = Arc<Fate>;

    fn should_accept_request(&self, concurrent_count: usize, total_count: usize) -> ShouldAccept {
        if total_count >= self.reuse {
            ShouldAccept::Never
        } else if concurrent_count >= AT_A_TIME {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _store: StoreContextMut<'_, Host>,
        fate: Arc<Fate>,
        _task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        self.given.add(&fate);
        let (given, alarm) = (self.given.clone(), self.running.clock().alarm(Instant::now() + self.timeout));
        Box::pin(async move {
            alarm.await;
            given.late.store(true, Ordering::Release);
        })
    }

    fn drop(&self, store: Store<Host>, result: wasmtime::Result<()>) {
        if let Err(error) = result {
            if !self.given.is_late() {
                report(&self.name, &error); // else it is told
            }
            let fates = self.given.fates();
            tokio::spawn(async move {
                for fate in fates {
                    fate.break_off().await;
                }
                drop(store); // their bodies would end with it
            });
        }
    }
}
