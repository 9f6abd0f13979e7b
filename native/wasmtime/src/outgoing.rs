//! Requests of guests: HTTP/1.1, and HTTP/2 where both sides of a TLS connection speak it; connections are kept for others.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, timeout};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use crate::connect::{self, Limited};
use crate::destinations::{Checked, Destinations, Prohibited};
use crate::trust::{self, ClientTls};

pub type Exchange = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);
pub type Sending = Box<dyn Future<Output = Result<Exchange, Error>> + Send>;

/// Who sends guests' requests.
pub trait Ask: Send + Sync {
    /// :param slots: of the guest; one is taken until the answer's end
    fn send(
        self: Arc<Self>,
        request: http::Request<WasiBody>,
        options: RequestOptions,
        slots: Arc<Semaphore>,
    ) -> Sending;

    /// Why a request is not sent in any case, as far as that is known by its target; ``None``: it may be.
    fn refuses(&self, target: &Uri) -> Option<Error>;

    /// Whom they trust.
    fn tls(&self) -> Arc<ClientConfig>;
}

/// As in wasmtime's host.
const LIMIT: Duration = Duration::from_secs(600);
/// Connections that nobody uses: for how long they are kept, how many to one place, and to all.
const IDLE: Duration = Duration::from_secs(30);
const MOST_IDLE: usize = 16;
const MOST: usize = 128;

/// What all guests of a process ask others by.
pub struct Outgoing {
    client: OnceLock<Client<Limited<HttpsConnector<HttpConnector<Checked>>>, WasiBody>>,
    tls: OnceLock<Arc<ClientConfig>>,
    trust: trust::Places,
    rules: Rules,
}

/// What an operator says of them.
#[derive(Clone, Default)]
pub struct Rules {
    pub destinations: Arc<Destinations>,
    /// A connection is for one request.
    pub once: bool,
    /// Another trust than the container's, and a certificate to show.
    pub tls: Option<Arc<ClientTls>>,
    /// Of requests under way, of all guests.
    pub limit: Option<Arc<Semaphore>>,
}

impl Outgoing {
    pub fn new(env: &[(String, String)]) -> Self {
        Self::under(Rules::default(), env)
    }

    pub fn under(rules: Rules, env: &[(String, String)]) -> Self {
        Self { client: OnceLock::new(), tls: OnceLock::new(), trust: trust::Places::of(env), rules }
    }

    async fn ask(
        self: Arc<Self>,
        request: http::Request<WasiBody>,
        options: RequestOptions,
        slots: Arc<Semaphore>,
    ) -> Result<Exchange, Error> {
        let permit = slots.acquire_owned().await.map_err(|_| Error::ConnectionLimitReached)?;
        if let Some(error) = self.refuses(request.uri()) {
            return Err(error);
        }
        let counted = match &self.rules.limit {
            Some(limit) => Some(limit.clone().acquire_owned().await.map_err(|_| Error::ConnectionLimitReached)?),
            None => None,
        };
        let (connecting, answering) =
            (options.connect_timeout.unwrap_or(LIMIT), options.first_byte_timeout.unwrap_or(LIMIT));
        let asked = connect::LIMIT.scope(connecting, self.client().request(request));
        let response = timeout(connecting.saturating_add(answering), asked)
            .await
            .map_err(|_| Error::ConnectionReadTimeout)?
            .map_err(why)?;
        let between = options.between_bytes_timeout.unwrap_or(LIMIT);
        let body = |incoming| Answer { incoming, between, sleep: None, _permits: (permit, counted) }.boxed_unsync();
        Ok((response.map(body), Box::new(async { Ok(()) })))
    }

    fn config(&self) -> Arc<ClientConfig> {
        let make = || self.rules.tls.as_ref().map_or_else(|| self.trust.config(), |own| own.config(&self.trust));
        self.tls.get_or_init(|| Arc::new(make())).clone()
    }

    fn client(&self) -> &Client<Limited<HttpsConnector<HttpConnector<Checked>>>, WasiBody> {
        self.client.get_or_init(|| {
            let mut tcp = HttpConnector::new_with_resolver(Checked::new(self.rules.destinations.clone()));
            tcp.enforce_http(false);
            tcp.set_nodelay(true);
            let tls = HttpsConnectorBuilder::new().with_tls_config((*self.config()).clone());
            let connector = tls.https_or_http().enable_all_versions().wrap_connector(tcp);
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(if self.rules.once { 0 } else { MOST_IDLE })
                .build(Limited::new(connector, MOST))
        })
    }
}

impl Ask for Outgoing {
    fn send(
        self: Arc<Self>,
        request: http::Request<WasiBody>,
        options: RequestOptions,
        slots: Arc<Semaphore>,
    ) -> Sending {
        Box::new(self.ask(request, options, slots))
    }

    fn refuses(&self, target: &Uri) -> Option<Error> {
        match target.host() {
            None => Some(Error::HttpRequestUriInvalid),
            Some(host) => self.rules.destinations.refuses(host).then_some(Error::DestinationIpProhibited),
        }
    }

    fn tls(&self) -> Arc<ClientConfig> {
        self.config()
    }
}

/// An answer's body, each part of which comes in time.
struct Answer {
    incoming: Incoming,
    between: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            self.sleep = None;
            return Poll::Ready(frame.map(|it| it.map_err(Error::from)));
        }
        let between = self.between;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + between)));
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// What a guest is told of a failure, by the causes that it has.
fn why(error: legacy::Error) -> Error {
    if is_prohibited(&error) {
        return Error::DestinationIpProhibited;
    }
    let mut cause = error.source();
    while let Some(found) = cause {
        if found.is::<connect::TooLate>() {
            return Error::ConnectionTimeout;
        }
        if found.to_string().starts_with("dns error") {
            return Error::DnsError { rcode: Some("name not known".into()), info_code: None };
        }
        if let Some(error) = found.downcast_ref::<rustls::Error>() {
            return of_tls(error);
        }
        if let Some(error) = found.downcast_ref::<io::Error>().map(innermost) {
            if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                return of_tls(error);
            }
            if error.get_ref().is_some_and(|inner| inner.is::<connect::TooLate>()) {
                return Error::ConnectionTimeout;
            }
            if let Some(known) = of_system(error) {
                return known;
            }
        }
        if found.is::<Error>() {
            return Error::HttpProtocolError; // of the guest's own body
        }
        cause = found.source();
    }
    if error.is_connect() { Error::ConnectionRefused } else { Error::HttpProtocolError }
}

/// Also where it is the inner one of an error of the system's, which gives it not as its source.
fn is_prohibited(error: &(dyn std::error::Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<Prohibited>() || inner.map_or_else(|| error.source(), |it| Some(it as _)).is_some_and(is_prohibited)
}

/// Connectors put errors of the system's kind into others.
fn innermost(error: &io::Error) -> &io::Error {
    error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>()).map_or(error, innermost)
}

fn of_tls(error: &rustls::Error) -> Error {
    match error {
        rustls::Error::InvalidCertificate(_) => Error::TlsCertificateError,
        rustls::Error::AlertReceived(alert) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: alert.as_str().map(str::to_string),
        },
        _ => Error::TlsProtocolError,
    }
}

fn of_system(error: &io::Error) -> Option<Error> {
    Some(match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Error::DestinationUnavailable,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof => {
            Error::ConnectionTerminated
        }
        _ => return None,
    })
}
