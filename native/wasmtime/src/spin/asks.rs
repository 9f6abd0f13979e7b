//! Requests of one component: to what its manifest allows, to its neighbours, and under the operator's rules.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use http::Uri;
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http_body_util::BodyExt;
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::allowed::{AllowedHost, CHAINED, SELF, allows, allows_self};
use super::application::Application;
use crate::outgoing::{Ask, Exchange, Outgoing, Sending};

/// What requests without a host are sent to: see ``own.rs``.
pub const NO_AUTHORITY: &str = SELF[1];
/// Of the connection that there is none of.
const HOP: [HeaderName; 5] = [CONNECTION, HeaderName::from_static("keep-alive"), TE, TRANSFER_ENCODING, UPGRADE];
/// Of a component that asks another: it has none.
const CLIENT: &str = "0.0.0.0:0";

pub struct Asks {
    allowed: Arc<[AllowedHost]>,
    others: Arc<Outgoing>,
    /// By the hosts that have a TLS configuration of their own.
    own: BTreeMap<String, Arc<Outgoing>>,
    /// Once there is one.
    application: Arc<OnceLock<Weak<Application>>>,
}

enum Way {
    Sent(Arc<Outgoing>),
    Routed(Arc<Application>),
    Called(Arc<Application>, usize),
}

impl Asks {
    pub fn new(
        allowed: Arc<[AllowedHost]>,
        others: Arc<Outgoing>,
        own: BTreeMap<String, Arc<Outgoing>>,
        application: Arc<OnceLock<Weak<Application>>>,
    ) -> Self {
        Self { allowed, others, own, application }
    }

    fn way(&self, uri: &Uri) -> Result<Way, Error> {
        let scheme = uri.scheme_str().unwrap_or("https");
        let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
        if authority.as_str().contains('@') || uri.port_u16() == Some(0) {
            return Err(Error::HttpRequestUriInvalid);
        }
        let host = authority.host().to_ascii_lowercase();
        let port = authority.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        if host == NO_AUTHORITY || host.is_empty() {
            let found = if allows_self(&self.allowed) { self.found() } else { Err(Error::HttpRequestDenied) };
            return found.map(Way::Routed);
        }
        if !allows(&self.allowed, scheme, &host, port) {
            return Err(Error::HttpRequestDenied);
        }
        if let Some(id) = host.strip_suffix(CHAINED) {
            let application = self.found()?;
            let component = application.answering(id).ok_or(Error::DestinationNotFound)?;
            return Ok(Way::Called(application, component));
        }
        let outgoing = self.own.get(host.trim_matches(['[', ']'])).unwrap_or(&self.others);
        Ok(Way::Sent(outgoing.clone()))
    }

    fn found(&self) -> Result<Arc<Application>, Error> {
        self.application.get().and_then(Weak::upgrade).ok_or(Error::DestinationNotFound)
    }
}

impl Ask for Asks {
    fn send(
        self: Arc<Self>,
        request: http::Request<WasiBody>,
        options: RequestOptions,
        slots: Arc<Semaphore>,
    ) -> Sending {
        match self.way(request.uri()) {
            Err(error) => Box::new(async { Err(error) }),
            Ok(Way::Sent(outgoing)) => outgoing.send(request, options, slots),
            Ok(Way::Routed(application)) => Box::new(async move {
                let request = local(request);
                answered(application.routed(request, CLIENT).await)
            }),
            Ok(Way::Called(application, component)) => Box::new(async move {
                let request = local(request);
                answered(application.called(component, request, CLIENT).await)
            }),
        }
    }

    fn refuses(&self, target: &Uri) -> Option<Error> {
        match self.way(target) {
            Ok(Way::Sent(outgoing)) => outgoing.refuses(target),
            Ok(_) => None,
            Err(error) => Some(error),
        }
    }

    fn tls(&self) -> Arc<ClientConfig> {
        self.others.tls()
    }
}

/// As it would come by a connection.
fn local(mut request: http::Request<WasiBody>) -> http::Request<WasiBody> {
    let authority = request.uri().authority().map_or(NO_AUTHORITY, |it| it.as_str());
    let host = HeaderValue::try_from(authority);
    let headers = request.headers_mut();
    HOP.iter().for_each(|name| drop(headers.remove(name)));
    if let Ok(host) = host {
        headers.insert(HOST, host);
    }
    request
}

fn answered(answer: Result<http::Response<crate::http::GuestBody>, crate::http::NoAnswer>) -> Result<Exchange, Error> {
    let mut response = answer.map_err(|_| Error::HttpResponseIncomplete)?;
    HOP.iter().for_each(|name| drop(response.headers_mut().remove(name)));
    Ok((response.map(|body| body.boxed_unsync()), Box::new(async { Ok(()) })))
}
