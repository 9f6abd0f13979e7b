//! The server: the wire, the limits, and the end.

use std::convert::Infallible;
use std::ffi::c_int;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use http::header::{HOST, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Response, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use wasmtime::Engine;
use wasmtime::component::{self, InstancePre};
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::handler::Request;

use super::NoAnswer;
use super::activity::Activity;
use super::body::GuestBody;
use super::component::Component;
use super::limits;
use super::log::Entry;
use super::signals::{self, Signals};
use super::tally::Tally;
use crate::abi::{Block, Kind, failed, tell};
use crate::clock::Clock;
use crate::engine::{self, Flavour};
use crate::host::{Host, World};
use crate::spin::Application;

/// ``shimd/engines/http_settings.py``.
#[derive(Clone)]
pub struct Settings {
    pub host: String,
    pub port: u16,
    pub backlog: u32,
    pub timeout: Option<Duration>,
    pub concurrency: usize,
    pub grace: Duration,
    pub access_log: bool,
    pub reuse: usize,
    pub idle: Duration,
}

pub struct Server {
    kind: Kind,
    pre: InstancePre<Host>,
    world: World,
    settings: Settings,
}

impl Server {
    pub fn load(block: &Block, world: World, settings: Settings) -> wasmtime::Result<Self> {
        let (kind, flavour) = (block.kind, Flavour::of(block.kind));
        let map = |engine: &Engine| unsafe { component::Component::deserialize_file(engine, &block.artifact) };
        let component = match engine::pooling(flavour, settings.concurrency).and_then(|engine| map(&engine)) {
            Ok(component) => component,
            Err(_) => map(&Engine::new(&flavour.config())?)?, // it needs larger places than a pool has, say
        };
        let mut linker = flavour.linker(component.engine())?;
        block.bridged.link(&mut linker, &component)?;
        let pre = linker.instantiate_pre(&component)?;
        signals::hold();
        Ok(Self { kind, pre, world, settings })
    }

    /// Serve until a signal ends it; returns the exit code.
    pub fn run(self) -> c_int {
        let Self { kind, pre, world, settings } = self;
        let own = settings.clone();
        run(&settings, false, move || {
            let clock = Clock::start(pre.engine());
            let component = Component::new(kind, pre, world, &own, clock).map_err(|error| format!("{error:#}"))?;
            Ok(App::One(component))
        })
    }
}

/// Serve until a signal ends it; returns the exit code.
///
/// :param announced: whether to tell the address
/// :param make: the app, once there are threads
pub fn run(settings: &Settings, announced: bool, make: impl FnOnce() -> Result<App, String>) -> c_int {
    match runtime().map(|runtime| runtime.block_on(serve(settings, announced, make))) {
        Ok(Ok(())) => 0,
        Ok(Err(reason)) => failed(&reason),
        Err(error) => failed(&error.to_string()),
    }
}

async fn serve(settings: &Settings, announced: bool, make: impl FnOnce() -> Result<App, String>) -> Result<(), String> {
    let listener = listen(settings)?;
    let signals = Signals::new().map_err(|error| error.to_string())?;
    let serving = Arc::new(Serving::new(make()?, settings));
    if let (true, Ok(address)) = (announced, listener.local_addr()) {
        tell(&format!("serving on http://{address}"));
    }
    let ending = watch::Sender::new(());
    tokio::select! {
        never = accept(&listener, &serving, &ending) => match never {},
        () = signals.next() => {}
    }
    accept_waiting(listener, settings.backlog, &serving, &ending);
    ending.send_replace(());
    let finished = async {
        ending.closed().await;
        serving.app.finished().await;
    };
    tokio::select! {
        () = finished => {}
        () = signals.next() => {}
        () = tokio::time::sleep(settings.grace) => {}
    }
    serving.app.end().await;
    Ok(())
}

async fn accept(listener: &TcpListener, serving: &Arc<Serving>, ending: &watch::Sender<()>) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => begin(stream, peer, serving, ending),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await, // descriptors may be short
        }
    }
}

/// Those that clients have made already: the kernel would break them with the listening socket.
fn accept_waiting(listener: TcpListener, most: u32, serving: &Arc<Serving>, ending: &watch::Sender<()>) {
    let Ok(listener) = listener.into_std() else { return };
    for _ in 0..=most {
        let Ok((stream, peer)) = listener.accept() else { return };
        if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
            begin(stream, peer, serving, ending);
        }
    }
}

fn begin(stream: TcpStream, peer: SocketAddr, serving: &Arc<Serving>, ending: &watch::Sender<()>) {
    let _ = stream.set_nodelay(true);
    tokio::spawn(serving.clone().connection(stream, peer, ending.subscribe()));
}

/// What answers requests.
struct Serving {
    app: App,
    access_log: bool,
    wire: auto::Builder<TokioExecutor>,
    idle: Duration,
    tally: Option<Tally>,
}

pub enum App {
    One(Component),
    Spin(Arc<Application>),
}

impl App {
    async fn answer(&self, request: Request, peer: SocketAddr) -> Result<Response<GuestBody>, NoAnswer> {
        match self {
            Self::One(component) => component.answer(request).await,
            Self::Spin(application) => application.answer(request, peer).await,
        }
    }

    /// Wait until no guest is at work.
    async fn finished(&self) {
        match self {
            Self::One(component) => component.finished().await,
            Self::Spin(application) => application.finished().await,
        }
    }

    /// Nothing more is answered.
    async fn end(&self) {
        if let Self::Spin(application) = self {
            application.end().await;
        }
    }
}

impl Serving {
    fn new(app: App, settings: &Settings) -> Self {
        let (wire, idle) = (limits::wire(settings.idle, settings.concurrency), settings.idle);
        Self { app, access_log: settings.access_log, wire, idle, tally: Tally::new() }
    }

    /// :param ending: changes when the app is told to end
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, mut ending: watch::Receiver<()>) {
        let here = stream.local_addr().unwrap_or(peer);
        let activity = Arc::<Activity>::default();
        let (serving, active) = (self.clone(), activity.clone());
        let service = service_fn(move |request| serving.clone().respond(request, peer, here, active.clone()));
        let mut connection = pin!(self.wire.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = connection.as_mut() => return, // a client that goes away is nobody's error
            _ = ending.changed() => {}
            () = activity.none_for(self.idle) => {}
            () = activity.not_taken_for(self.idle) => return,
        }
        if activity.is_none() {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = tokio::time::sleep(limits::SENT) => {}
            }
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = activity.none_for(limits::LAST) => {}
            () = activity.not_taken_for(self.idle) => {}
        }
    }

    async fn respond(
        self: Arc<Self>,
        request: http::Request<Incoming>,
        peer: SocketAddr,
        here: SocketAddr,
        activity: Arc<Activity>,
    ) -> Result<Response<GuestBody>, Infallible> {
        let (under_way, begun) = (activity.request(), Instant::now());
        let entry = self.access_log.then(|| Entry::of(peer, &request));
        let answer = match named(request, here) {
            Ok(request) => self.answer(request, peer).await,
            Err(why) => Err(why),
        };
        let response = answer.unwrap_or_else(|why| {
            let mut response = Response::new(GuestBody::empty());
            *response.status_mut() = why.status();
            response
        });
        if let Some(tally) = &self.tally {
            tally.count(response.status(), begun.elapsed());
        }
        if let Some(entry) = entry {
            entry.write(response.status());
        }
        Ok(response.map(|body| body.of(under_way)))
    }

    async fn answer(
        &self,
        request: http::Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response<GuestBody>, NoAnswer> {
        self.app.answer(request.map(|body| body.map_err(Error::from).boxed_unsync()), peer).await
    }
}

/// A request of one host: its target's, else its header's, else, as HTTP/1.0 and HTTP/2 need not name one, where it came.
fn named(mut request: http::Request<Incoming>, here: SocketAddr) -> Result<http::Request<Incoming>, NoAnswer> {
    let host = host(&request)?;
    let target = request.uri().authority();
    if !target.is_none_or(names_a_host) {
        return Err(NoAnswer::Refused);
    }
    let Some(authority) = target.or(host.as_ref()).cloned().or_else(|| here.to_string().parse().ok()) else {
        return Err(NoAnswer::Refused);
    };
    if host.as_ref() != Some(&authority)
        && let Ok(value) = HeaderValue::try_from(authority.as_str())
    {
        request.headers_mut().insert(HOST, value);
    }
    if request.uri().authority().is_none() {
        let mut parts = request.uri().clone().into_parts();
        (parts.scheme, parts.authority) = (Some(Scheme::HTTP), Some(authority));
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    Ok(request)
}

/// What the header says, as RFC 9112, section 3.2, has it.
fn host(request: &http::Request<Incoming>) -> Result<Option<Authority>, NoAnswer> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_11 => Err(NoAnswer::Refused),
        (None, _) => Ok(None),
        (Some(host), None) if host.is_empty() => Ok(None),
        (Some(host), None) => match Authority::try_from(host.as_bytes()) {
            Ok(authority) if names_a_host(&authority) => Ok(Some(authority)),
            _ => Err(NoAnswer::Refused),
        },
        (Some(_), Some(_)) => Err(NoAnswer::Refused),
    }
}

/// And a port at the most, but no user.
fn names_a_host(authority: &Authority) -> bool {
    let port = authority.as_str().strip_prefix(authority.host());
    let digits = |port: &str| port.strip_prefix(':').is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_digit()));
    !authority.host().is_empty() && port.is_some_and(|port| port.is_empty() || digits(port))
}

/// As many threads as this process may have processors, by its affinity and its cgroups' quota.
fn runtime() -> std::io::Result<Runtime> {
    match available_parallelism().map_or(1, |it| it.get()) {
        1 => Builder::new_current_thread().enable_all().build(),
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

fn listen(settings: &Settings) -> Result<TcpListener, String> {
    let shown = if settings.host.contains(':') { format!("[{}]", settings.host) } else { settings.host.clone() };
    let fail = |error: std::io::Error| {
        let words = error.to_string();
        let reason = words.split(" (os error").next().unwrap_or_default();
        format!("cannot listen on {shown}:{}: {reason}", settings.port)
    };
    let mut found = (settings.host.as_str(), settings.port).to_socket_addrs().map_err(fail)?;
    let address = found.next().ok_or_else(|| format!("cannot listen on {shown}: it has no address"))?;
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }.map_err(fail)?;
    socket.set_reuseaddr(true).and_then(|()| socket.bind(address)).map_err(fail)?;
    socket.listen(settings.backlog).map_err(fail)
}
