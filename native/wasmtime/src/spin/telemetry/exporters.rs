//! What sends spans, metrics and logs by OTLP: OpenTelemetry's exporters, over connections that trust whom the application
//! does.

use std::error::Error as _;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    LogExporter, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::LogBatch;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::{Temporality, exporter::PushMetricExporter};
use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::{Resource, logs, trace};
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};

use crate::abi::tell;
use crate::trust::{ClientTls, Places};

/// Bytes of a server's answer, of which nothing but its errors is of interest.
const MOST: usize = 4 * 1024 * 1024;
const PREFIX: &str = "OTEL_EXPORTER_OTLP";

/// One of the three, as it is to be told.
#[derive(Deserialize)]
pub struct Signal {
    /// ``traces``, ``metrics`` or ``logs``.
    pub name: String,
    pub grpc: bool,
    /// The server's URL.
    endpoint: String,
}

impl Signal {
    /// What a variable of it says, or of all; ``None``: nothing.
    fn said<'a>(&self, env: &'a [(String, String)], what: &str) -> Option<&'a str> {
        let own = format!("{PREFIX}_{}_{what}", self.name.to_uppercase());
        let value = |name: &str| env.iter().find(|(key, value)| key == name && !value.is_empty());
        value(&own).or_else(|| value(&format!("{PREFIX}_{what}"))).map(|(_, value)| value.as_str())
    }

    /// For one request to a server.
    fn limit(&self, env: &[(String, String)]) -> Duration {
        Duration::from_millis(self.said(env, "TIMEOUT").and_then(|it| it.parse().ok()).unwrap_or(10_000))
    }

    fn tls(&self, env: &[(String, String)]) -> Result<ClientConfig, String> {
        let read = |what: &str| -> Result<String, String> {
            let Some(path) = self.said(env, what) else { return Ok(String::new()) };
            fs::read_to_string(path).map_err(|error| format!("{PREFIX}_{what}={path}: {error}"))
        };
        let places = Places::of(env);
        let (roots, certificate, key) = (read("CERTIFICATE")?, read("CLIENT_CERTIFICATE")?, read("CLIENT_KEY")?);
        let own = ClientTls { platform: roots.is_empty(), roots, webpki: false, certificate, key };
        own.check().map_err(|error| format!("{PREFIX}_CLIENT_CERTIFICATE cannot be shown: {error}"))?;
        Ok(own.config(&places))
    }

    fn connector(&self, env: &[(String, String)]) -> Result<HttpsConnector<HttpConnector>, String> {
        let builder = HttpsConnectorBuilder::new().with_tls_config(self.tls(env)?).https_or_http();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        Ok(if self.grpc {
            builder.enable_http2().wrap_connector(tcp)
        } else {
            builder.enable_http1().wrap_connector(tcp)
        })
    }

    fn channel(&self, env: &[(String, String)]) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(self.endpoint.clone()).map_err(|error| error.to_string())?;
        let limit = self.limit(env);
        Ok(endpoint.timeout(limit).connect_timeout(limit).connect_with_connector_lazy(self.connector(env)?))
    }

    fn client(&self, env: &[(String, String)], failures: &Arc<Failures>) -> Result<Sender, String> {
        Ok(Sender {
            failures: failures.clone(),
            client: Client::builder(TokioExecutor::new()).build(self.connector(env)?),
            runtime: Handle::current(),
            limit: self.limit(env),
        })
    }

    pub fn spans(&self, env: &[(String, String)], told: &Arc<Failures>) -> Result<Told<SpanExporter>, String> {
        let builder = SpanExporter::builder();
        let made = if self.grpc {
            builder.with_tonic().with_channel(self.channel(env)?).build()
        } else {
            builder.with_http().with_protocol(BINARY).with_http_client(self.client(env, told)?).build()
        };
        Ok(Told { inner: made.map_err(|error| error.to_string())?, failures: told.clone(), what: "traces" })
    }

    pub fn metrics(&self, env: &[(String, String)], told: &Arc<Failures>) -> Result<Told<MetricExporter>, String> {
        let builder = MetricExporter::builder();
        let made = if self.grpc {
            builder.with_tonic().with_channel(self.channel(env)?).build()
        } else {
            builder.with_http().with_protocol(BINARY).with_http_client(self.client(env, told)?).build()
        };
        Ok(Told { inner: made.map_err(|error| error.to_string())?, failures: told.clone(), what: "metrics" })
    }

    pub fn logs(&self, env: &[(String, String)], told: &Arc<Failures>) -> Result<Told<LogExporter>, String> {
        let builder = LogExporter::builder();
        let made = if self.grpc {
            builder.with_tonic().with_channel(self.channel(env)?).build()
        } else {
            builder.with_http().with_protocol(BINARY).with_http_client(self.client(env, told)?).build()
        };
        Ok(Told { inner: made.map_err(|error| error.to_string())?, failures: told.clone(), what: "logs" })
    }
}

const BINARY: opentelemetry_otlp::Protocol = opentelemetry_otlp::Protocol::HttpBinary;

/// Sends from the application's threads for those of the exporters, which have no runtime.
#[derive(Debug)]
struct Sender {
    failures: Arc<Failures>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    limit: Duration,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let (client, limit) = (self.client.clone(), self.limit);
        let sent = self.runtime.spawn(async move {
            tokio::time::timeout(limit, async move {
                let (head, body) = client.request(request.map(Full::new)).await.map_err(innermost)?.into_parts();
                let body = Limited::new(body, MOST).collect().await?.to_bytes();
                Ok::<_, HttpError>(http::Response::from_parts(head, body))
            })
            .await
            .map_err(|_| format!("no answer within {} ms", limit.as_millis()))?
        });
        sent.await?.inspect_err(|error| self.failures.note(error.to_string()))
    }
}

/// Why it was not sent, in the words of whoever knows.
fn innermost(error: hyper_util::client::legacy::Error) -> HttpError {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words = inner.to_string();
        cause = inner.source();
    }
    words.into()
}

/// Tells of the first failure; an endpoint that is dead would fill the application's log.
#[derive(Debug)]
pub struct Failures {
    /// Where all is told to, as it may be shown.
    servers: String,
    told: AtomicBool,
    /// Why the last request came to nothing: the exporters do not tell.
    noted: Mutex<Option<String>>,
}

impl Failures {
    pub fn new(servers: String) -> Self {
        Self { servers, told: AtomicBool::new(false), noted: Mutex::default() }
    }

    fn note(&self, reason: String) {
        *self.noted.lock().expect("nobody panics with it") = Some(reason);
    }

    fn noted(&self) -> Option<String> {
        self.noted.lock().expect("nobody panics with it").take()
    }

    pub fn tell(&self, reason: &str) {
        if !self.told.swap(true, Ordering::AcqRel) {
            tell(&format!("shimd: telemetry for {} is lost (this is told once): {reason}", self.servers));
        }
    }
}

/// An exporter whose failures are told.
#[derive(Debug)]
pub struct Told<E> {
    inner: E,
    failures: Arc<Failures>,
    what: &'static str,
}

impl<E> Told<E> {
    fn told(&self, done: OTelSdkResult) -> OTelSdkResult {
        if let Err(error) = &done {
            let reason = self.failures.noted().unwrap_or_else(|| error.to_string());
            self.failures.tell(&format!("Failed to export {}: {reason}", self.what));
        }
        done
    }
}

impl trace::SpanExporter for Told<SpanExporter> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.told(self.inner.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl logs::LogExporter for Told<LogExporter> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        self.told(self.inner.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl PushMetricExporter for Told<MetricExporter> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.told(self.inner.export(metrics).await)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}
