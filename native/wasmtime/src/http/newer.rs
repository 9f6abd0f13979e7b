//! WASI 0.3: instances are used again, and by several requests at a time, as ``wasmtime serve`` does.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, watch};
use wasmtime::component::GuestTaskId;
use wasmtime::{Store, StoreContextMut};
use wasmtime_wasi_http::handler::{
    ExpirationError, HandlerState, Instance, InstantiationError, Proxy, ProxyHandler, ShouldAccept, TrapOrPanicError,
    WorkerExpiration, WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::body::{Fate, GuestBody};
use super::upload::limited;
use super::{NoAnswer, computes, report, too_late};
use crate::clock::{Alarm, Clock, Computing, Running, let_others_run};
use crate::host::{Host, World};

/// Requests in one instance at a time, as of ``wasmtime serve``.
const AT_A_TIME: usize = 16;
/// How long an instance that does nothing is kept, likewise.
const IDLE: Duration = Duration::from_secs(1);
const NEVER: Duration = Duration::from_secs(86400 * 365);

pub struct Newer {
    handler: ProxyHandler<Instances>,
    timeout: Option<Duration>,
    idle: Duration,
    clock: Arc<Clock>,
}

impl Newer {
    pub fn new(instances: Instances, idle: Duration) -> Self {
        let (timeout, clock) = (instances.timeout, instances.clock.clone());
        Self { handler: ProxyHandler::new(instances), timeout, idle, clock }
    }

    pub async fn answer(
        &self,
        request: http::Request<Incoming>,
        permit: OwnedSemaphorePermit,
    ) -> Result<http::Response<GuestBody>, NoAnswer> {
        let fate = Arc::<Fate>::default();
        let request = limited(request, &fate, &self.clock, self.idle);
        let (begun, awaited) = (Instant::now(), fate.clone().awaited());
        // Its instance ends it, too, but not before it is in one.
        let answer = self.clock.within(self.timeout, self.handler.handle(fate.clone(), request)).await;
        match answer.unwrap_or_else(|| Err(ExpirationError.into())) {
            Ok(response) => {
                fate.answer();
                Ok(response.map(|body| GuestBody::new(body, awaited, Some(permit))))
            }
            Err(error) if is_late(&error) => Err(too_late(self.timeout)),
            Err(error) if error.is::<TrapOrPanicError>() => Err(self.why(begun)), // it is told when the instance ends
            Err(error) => {
                report(&error);
                Err(NoAnswer::Failed)
            }
        }
    }

    /// Wait until no guest has anything to do.
    pub async fn ended(&self) {
        self.handler.state().working.closed().await;
    }

    /// Why there is no answer of an instance that has ended.
    fn why(&self, begun: Instant) -> NoAnswer {
        match self.timeout {
            Some(timeout) if begun.elapsed() >= timeout => too_late(self.timeout),
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
    /// Its receivers: instances that have something to do.
    pub working: watch::Sender<()>,
}

impl HandlerState for Instances {
    type StoreData = Host;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<Host, Expiration, Worker>> {
        let (running, computing) = (self.clock.running(), Computing::default());
        let mut store = Store::new(self.pre.engine(), self.world.request());
        let_others_run(&mut store, &computing);
        let (timeout, given) = (self.timeout.unwrap_or(NEVER), Arc::<Given>::default());
        let made = self.clock.within(self.timeout, self.pre.instantiate_async(&mut store)).await;
        let proxy = Proxy::P3(made.ok_or(ExpirationError)??);
        Ok(Instance {
            store,
            proxy,
            view: Host::of_client,
            expiration: Expiration {
                timeout,
                alarm: self.clock.alarm(Instant::now()),
                given: given.clone(),
                computing,
            },
            state: Worker { timeout, reuse: self.reuse, given, running, working: self.working.clone() },
        })
    }
}

/// The requests that an instance has been given.
#[derive(Default)]
struct Given {
    /// One has not been answered in time: the instance gets no more.
    late: AtomicBool,
    fates: Mutex<Vec<Weak<Fate>>>,
    /// They have not all ended, whether or not they are answered.
    working: Mutex<Option<watch::Receiver<()>>>,
}

impl Given {
    fn add(&self, fate: &Arc<Fate>) {
        let mut fates = self.fates.lock().expect("nobody panics with it");
        fates.retain(|fate| fate.strong_count() > 0);
        fates.push(Arc::downgrade(fate));
    }

    fn works(&self, working: Option<watch::Receiver<()>>) {
        *self.working.lock().expect("nobody panics with it") = working;
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
    computing: Computing,
}

impl Expiration {
    /// It goes on without an end, and nobody waits for it: neither does it wait for anything.
    fn is_lost(&self, computed: Duration) -> bool {
        let lost = computed >= self.timeout && !self.given.is_answering();
        if lost {
            computes(self.timeout);
            self.given.late.store(true, Ordering::Release); // it is told
        }
        lost
    }
}

impl WorkerExpiration for Expiration {
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>, status: WorkerStatus, start: Instant) -> Poll<()> {
        let computed = self.computing.time();
        let after = match status {
            WorkerStatus::Idle => {
                self.given.works(None);
                IDLE
            }
            WorkerStatus::Requests => self.timeout,
            WorkerStatus::PostReturn if !self.given.is_late() => {
                // It has answered: it takes its time.
                return if self.is_lost(computed) { Poll::Ready(()) } else { Poll::Pending };
            }
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
    timeout: Duration,
    reuse: usize,
    given: Arc<Given>,
    running: Running,
    working: watch::Sender<()>,
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
        self.given.works(Some(self.working.subscribe()));
        let (given, alarm) = (self.given.clone(), self.running.clock().alarm(Instant::now() + self.timeout));
        Box::pin(async move {
            alarm.await;
            given.late.store(true, Ordering::Release);
        })
    }

    fn drop(&self, store: Store<Host>, result: wasmtime::Result<()>) {
        if let Err(error) = result {
            if !self.given.is_late() {
                report(&error); // else it is told
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
