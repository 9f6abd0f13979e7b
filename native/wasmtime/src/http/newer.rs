//! WASI 0.3: instances are used again, and by several requests at a time, as ``wasmtime serve`` does. But one that computes
//! gets no more: they would wait for it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot, watch};
use wasmtime::component::Accessor;
use wasmtime::{Store, format_err};
use wasmtime_wasi_http::handler::{Request, Response};
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};
use wasmtime_wasi_http::{Error, p3};

use super::ahead::Bodies;
use super::body::{Fate, GuestBody};
use super::upload::limited;
use super::{NoAnswer, computes, report, too_late};
use crate::clock::{Alarm, Clock, Computing, let_others_run};
use crate::host::{Host, World};

/// Requests in one instance at a time, as of ``wasmtime serve``.
const AT_A_TIME: usize = 16;
/// How long an instance that does nothing is kept, likewise.
const IDLE: Duration = Duration::from_secs(1);
const NEVER: Duration = Duration::from_secs(86400 * 365);

pub struct Newer {
    instances: Arc<Instances>,
    idle: Duration,
}

impl Newer {
    pub fn new(instances: Instances, idle: Duration) -> Self {
        Self { instances: Arc::new(instances), idle }
    }

    pub async fn answer(
        &self,
        request: Request,
        permit: OwnedSemaphorePermit,
    ) -> Result<http::Response<GuestBody>, NoAnswer> {
        let Instances { clock, timeout, .. } = &*self.instances;
        let fate = Arc::<Fate>::default();
        let request = limited(request, &fate, clock, self.idle);
        let (begun, awaited) = (Instant::now(), fate.clone().awaited());
        let (sender, receiver) = oneshot::channel();
        self.instances.ask(Asked { request, fate: fate.clone(), sender });
        // Its instance ends it, too, but not before it is in one.
        match clock.within(*timeout, receiver).await {
            Some(Ok(Ok(response))) => {
                fate.answer();
                Ok(response.map(|body| GuestBody::new(body, awaited, Some(permit))))
            }
            Some(Ok(Err(error))) => {
                report(&self.instances.world.name, &error);
                Err(NoAnswer::Failed)
            }
            // Its instance has ended, and tells why.
            Some(Err(_)) if timeout.is_none_or(|timeout| begun.elapsed() < timeout) => Err(NoAnswer::Failed),
            Some(Err(_)) | None => Err(too_late(&self.instances.world.name, *timeout)),
        }
    }

    /// Wait until no guest has anything to do.
    pub async fn ended(&self) {
        self.instances.working.closed().await;
    }
}

/// A request, and where its answer goes.
struct Asked {
    request: Request,
    fate: Arc<Fate>,
    sender: oneshot::Sender<wasmtime::Result<Response>>,
}

pub struct Instances {
    pre: ServicePre<Host>,
    world: World,
    timeout: Option<Duration>,
    /// Requests that an instance has, one after the other.
    reuse: usize,
    clock: Arc<Clock>,
    /// Its receivers: instances that have something to do.
    working: watch::Sender<()>,
    waiting: Mutex<Waiting>,
    came: Notify,
}

/// Requests that nobody has taken yet; there are none while there is nobody to.
#[derive(Default)]
struct Waiting {
    asked: VecDeque<Asked>,
    /// Instances that would take one.
    free: usize,
}

impl Instances {
    pub fn new(
        pre: ServicePre<Host>,
        world: World,
        timeout: Option<Duration>,
        reuse: usize,
        clock: Arc<Clock>,
    ) -> Self {
        let (working, waiting, came) = (watch::Sender::default(), Mutex::default(), Notify::new());
        Self { pre, world, timeout, reuse, clock, working, waiting, came }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nobody panics with it")
    }

    fn ask(self: &Arc<Self>, asked: Asked) {
        let mut waiting = self.waiting();
        waiting.asked.push_back(asked);
        self.hand_out(&mut waiting);
    }

    /// To those that are free, or to new ones.
    fn hand_out(self: &Arc<Self>, waiting: &mut Waiting) {
        if waiting.free > 0 {
            self.came.notify_waiters();
            return;
        }
        for asked in waiting.asked.drain(..) {
            tokio::spawn(self.clone().run(asked));
        }
    }

    /// An instance, from its first request to its end.
    async fn run(self: Arc<Self>, mut first: Asked) {
        let (_running, computing) = (self.clock.running(), Computing::default());
        let mut store = self.world.store(self.pre.engine(), first.request.extensions_mut().remove());
        let_others_run(&mut store, &computing);
        let service = match self.clock.within(self.timeout, self.pre.instantiate_async(&mut store)).await {
            Some(Ok(service)) => service,
            Some(Err(error)) => {
                let _ = first.sender.send(Err(error));
                return;
            }
            None => return, // its first request has not been answered in time
        };
        let instance = Instance {
            seat: Seat { of: self.clone(), free: AtomicBool::new(false) },
            given: Arc::default(),
            calm: AtomicBool::new(true),
            status: Mutex::new((Status::Idle, Instant::now())),
        };
        let result = instance.run(&mut store, &service, first, computing).await;
        instance.seat.set_free(false);
        if let Err(error) = result {
            if !instance.given.is_late() {
                report(&self.world.name, &error); // else it is told
            }
            for fate in instance.given.fates() {
                fate.break_off().await; // their bodies would end with the store
            }
        }
        drop(store); // before anybody knows that it is not at work any more
    }
}

/// An instance's among those that take requests.
struct Seat {
    of: Arc<Instances>,
    free: AtomicBool,
}

impl Seat {
    fn set_free(&self, free: bool) {
        if self.free.swap(free, Ordering::AcqRel) == free {
            return;
        }
        let mut waiting = self.of.waiting();
        if free {
            waiting.free += 1;
        } else {
            waiting.free -= 1;
            self.of.hand_out(&mut waiting);
        }
    }

    fn take(&self) -> Option<Asked> {
        if self.free.load(Ordering::Acquire) { self.of.waiting().asked.pop_front() } else { None }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.set_free(false);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Idle,
    /// There are some that it has not answered.
    Asked,
    /// It has answered all, and goes on.
    Answered,
}

struct Instance {
    seat: Seat,
    given: Arc<Given>,
    /// All that it has been given waits for something else.
    calm: AtomicBool,
    /// And since when, or when the last request came that it has not answered.
    status: Mutex<(Status, Instant)>,
}

impl Instance {
    async fn run(
        &self,
        store: &mut Store<Host>,
        service: &Service,
        first: Asked,
        mut computing: Computing,
    ) -> wasmtime::Result<()> {
        let Instances { clock, timeout, .. } = &*self.seat.of;
        let (timeout, alarm) = (timeout.unwrap_or(NEVER), clock.alarm(Instant::now()));
        let mut expiration =
            Expiration { name: self.seat.of.world.name.clone(), timeout, alarm, given: self.given.clone() };
        let bodies = Bodies::default();
        let mut serve =
            pin!(store.run_concurrent(async |accessor| self.serve(accessor, service, &bodies, first).await));
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = serve.as_mut().poll(cx) {
                    return Poll::Ready(result.flatten());
                }
                bodies.poll_else(cx);
                // A guest that computes has all of the instance, whose other requests are not looked at meanwhile.
                let computed = computing.time();
                let calm = computed.is_none();
                if !calm {
                    self.seat.set_free(false);
                }
                let (status, since) = *self.status();
                if expiration.poll(cx, status, since, computed.unwrap_or_default()).is_ready() {
                    let idle = status == Status::Idle;
                    return Poll::Ready(if idle { Ok(()) } else { Err(format_err!("guest timed out")) });
                }
                if self.calm.swap(calm, Ordering::AcqRel) || !calm {
                    return Poll::Pending;
                }
            } // it may take more now
        })
        .await
    }

    async fn serve(
        &self,
        accessor: &Accessor<Host>,
        service: &Service,
        bodies: &Bodies,
        first: Asked,
    ) -> wasmtime::Result<()> {
        type Call<'a> = Pin<Box<dyn Future<Output = wasmtime::Result<bool>> + Send + 'a>>;
        let instances = &self.seat.of;
        let function = *service.wasi_http_handler().func_handle().func();
        let mut calls: Vec<(Instant, Call<'_>)> = Vec::new();
        let (mut next, mut number, mut more) = (Some(first), 0, true);
        let mut came = pin!(instances.came.notified());
        poll_fn(|cx| {
            loop {
                if let Some(asked) = next.take() {
                    number += 1;
                    more &= number < instances.reuse;
                    self.calm.store(false, Ordering::Release); // it may compute, for all that is known
                    self.given.add(&asked.fate, instances.working.subscribe());
                    calls.push((Instant::now(), Box::pin(self.call(accessor, service, bodies, asked))));
                }
                let mut at = 0;
                while let Some((_, call)) = calls.get_mut(at) {
                    match call.as_mut().poll(cx) {
                        Poll::Pending => at += 1,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Ready(Ok(in_time)) => {
                            more &= in_time;
                            drop(calls.swap_remove(at));
                        }
                    }
                }
                bodies.poll(cx);
                let ready = accessor.poll_ready_for_concurrent_call(function, cx).is_ready();
                let calm = calls.is_empty() || self.calm.load(Ordering::Acquire);
                self.seat.set_free(more && ready && calm && calls.len() < AT_A_TIME);
                if came.as_mut().poll(cx).is_ready() {
                    came.set(instances.came.notified());
                    continue;
                }
                next = self.seat.take();
                if next.is_some() {
                    continue;
                }
                if let Some(last) = calls.iter().map(|(begun, _)| *begun).max() {
                    *self.status() = (Status::Asked, last);
                    return Poll::Pending;
                }
                let works = accessor.poll_no_interesting_tasks(cx).is_pending();
                // What the host itself passes on, a stream that the guest was given, is no task of the guest's.
                if !(works || self.given.is_answering() || more && ready) {
                    return Poll::Ready(Ok(()));
                }
                self.is(if works { Status::Answered } else { Status::Idle });
                return Poll::Pending;
            }
        })
        .await
    }

    /// Returns whether it was answered in time.
    async fn call(
        &self,
        accessor: &Accessor<Host>,
        service: &Service,
        bodies: &Bodies,
        asked: Asked,
    ) -> wasmtime::Result<bool> {
        let Instances { clock, timeout, .. } = &*self.seat.of;
        let late = clock.alarm(Instant::now() + timeout.unwrap_or(NEVER));
        let answer = async {
            let (request, sent) = accessor.with(|mut store| {
                let view = store.get().of_client();
                let (request, sent) = p3::Request::from_http(view.hooks, asked.request);
                let sent: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> = Box::pin(sent);
                wasmtime::error::Ok((view.table.push(request)?, sent))
            })?;
            let response = service.wasi_http_handler().call_handle(accessor, request).await??;
            accessor.with(|mut store| {
                let response = store.get().of_client().table.delete(response)?;
                response.into_http_with_getter(&mut store, sent, Host::of_client)
            })
        };
        tokio::select! {
            biased;
            result = answer => {
                let _ = asked.sender.send(result.map(|response| response.map(|body| bodies.share(body))));
                Ok(true)
            }
            () = late => {
                self.given.late.store(true, Ordering::Release);
                Ok(false)
            }
        }
    }

    fn status(&self) -> MutexGuard<'_, (Status, Instant)> {
        self.status.lock().expect("nobody panics with it")
    }

    fn is(&self, status: Status) {
        let mut before = self.status();
        if before.0 != status {
            *before = (status, Instant::now());
        }
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
    fn add(&self, fate: &Arc<Fate>, working: watch::Receiver<()>) {
        self.works(Some(working));
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
struct Expiration {
    /// What stands before what is told.
    name: String,
    timeout: Duration,
    alarm: Alarm,
    given: Arc<Given>,
}

impl Expiration {
    /// It goes on without an end, and nobody waits for it: neither does it wait for anything.
    fn is_lost(&self, computed: Duration) -> bool {
        let lost = computed >= self.timeout && !self.given.is_answering();
        if lost {
            computes(&self.name, self.timeout);
            self.given.late.store(true, Ordering::Release); // it is told
        }
        lost
    }

    /// :param since: when it came to be so
    /// :param computed: for how long it has waited for nothing
    fn poll(&mut self, cx: &mut Context<'_>, status: Status, since: Instant, computed: Duration) -> Poll<()> {
        let at = match status {
            Status::Idle if self.given.is_answering() => Instant::now() + IDLE,
            Status::Idle => {
                self.given.works(None);
                since + IDLE
            }
            Status::Asked => since + self.timeout,
            // It takes its time.
            Status::Answered if !self.given.is_late() => {
                return if self.is_lost(computed) { Poll::Ready(()) } else { Poll::Pending };
            }
            Status::Answered if !self.given.is_answering() => return Poll::Ready(()),
            Status::Answered => Instant::now() + IDLE,
        };
        self.alarm.reset(at);
        Pin::new(&mut self.alarm).poll(cx)
    }
}
