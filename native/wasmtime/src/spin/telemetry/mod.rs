//! Spans, metrics and logs of an application, by OpenTelemetry's SDK, which sends them from threads of its own: nothing,
//! unless its variables say where. What it is in Python: ``shimd/apps/spin/telemetry``.

mod calls;
mod exporters;
mod lines;
mod names;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, Uri};
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _};
use opentelemetry::metrics::{Counter, MeterProvider as _};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use serde::Deserialize;
use tokio::sync::oneshot;
use wasmtime_wasi_http::handler::Request;
use wasmtime_wasi_http::{Error, WasiBody};

use exporters::{Failures, Signal};

use crate::outgoing::{Exchange, Sending};

pub use calls::{Call, Calls, Case, WatchedInterface};
pub use names::Called;

const NAME: &str = "spin";
/// For what is not sent yet, at the application's end.
const FLUSH: Duration = Duration::from_secs(3);

/// What is to be told, and where to.
#[derive(Deserialize)]
pub struct Described {
    signals: Vec<Signal>,
    /// The servers, as they may be shown.
    servers: String,
}

/// Have OpenTelemetry's libraries read an application's variables, as if they were this process's.
pub fn adopt(env: &[(String, String)]) {
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("OTEL_"));
    // Nobody reads them meanwhile: what is to serve has no threads yet.
    ours.for_each(|name| unsafe { std::env::remove_var(name) });
    let theirs = env.iter().filter(|(name, _)| name.starts_with("OTEL_"));
    theirs.for_each(|(name, value)| unsafe { std::env::set_var(name, value) });
}

/// Tells of an application.
pub struct Teller {
    application: String,
    tracer: Option<SdkTracer>,
    logger: Option<SdkLogger>,
    requests: Option<Counter<u64>>,
    propagator: TraceContextPropagator,
    providers: Providers,
    failures: Arc<Failures>,
}

#[derive(Clone, Default)]
struct Providers {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
    logs: Option<SdkLoggerProvider>,
}

impl Teller {
    /// Called in the runtime that is to send.
    ///
    /// :raises: a variable is wrong
    pub fn new(described: Described, env: &[(String, String)], name: &str, version: &str) -> Result<Self, String> {
        let plain =
            [KeyValue::new("service.name", name.to_string()), KeyValue::new("service.version", version.to_string())];
        // What the variables say goes before.
        let mut resource =
            Resource::builder().with_attributes(plain).with_detector(Box::new(EnvResourceDetector::new()));
        if let Some((_, name)) = env.iter().find(|(key, value)| key == "OTEL_SERVICE_NAME" && !value.is_empty()) {
            resource = resource.with_service_name(name.clone());
        }
        let resource = resource.build();
        let (failures, mut providers) = (Arc::new(Failures::new(described.servers)), Providers::default());
        let failed = |reason: String| format!("telemetry cannot start, by the OTEL_ variables: {reason}");
        for signal in described.signals {
            match signal.name.as_str() {
                "traces" => {
                    let exporter = signal.spans(env, &failures).map_err(failed)?;
                    let builder = SdkTracerProvider::builder().with_resource(resource.clone());
                    providers.traces = Some(builder.with_batch_exporter(exporter).build());
                }
                "metrics" => {
                    let exporter = signal.metrics(env, &failures).map_err(failed)?;
                    let builder = SdkMeterProvider::builder().with_resource(resource.clone());
                    providers.metrics = Some(builder.with_periodic_exporter(exporter).build());
                }
                _ => {
                    let exporter = signal.logs(env, &failures).map_err(failed)?;
                    let builder = SdkLoggerProvider::builder().with_resource(resource.clone());
                    providers.logs = Some(builder.with_batch_exporter(exporter).build());
                }
            }
        }
        let meter = providers.metrics.as_ref().map(|it| it.meter(NAME));
        Ok(Self {
            application: name.to_string(),
            tracer: providers.traces.as_ref().map(|it| it.tracer(NAME)),
            logger: providers.logs.as_ref().map(|it| it.logger(NAME)),
            requests: meter.map(|it| it.u64_counter("spin.request_count").build()),
            propagator: TraceContextPropagator::new(),
            providers,
            failures,
        })
    }

    /// Send what is left, for a while.
    pub async fn end(&self) {
        let (done, ended) = oneshot::channel();
        let (providers, failures) = (self.providers.clone(), self.failures.clone());
        std::thread::spawn(move || {
            providers.end(&failures);
            let _ = done.send(());
        });
        if tokio::time::timeout(FLUSH, ended).await.is_err() {
            self.failures.tell(&format!("what is left was not taken within {} s of the end", FLUSH.as_secs()));
        }
    }

    /// A span below another; the same as that, if no spans are told. It ends with the last that has it.
    fn span(&self, name: String, kind: SpanKind, told: Vec<KeyValue>, parent: &Context) -> Context {
        let Some(tracer) = &self.tracer else { return parent.clone() };
        let builder = tracer.span_builder(name).with_kind(kind).with_attributes(told);
        parent.with_span(builder.start_with_context(tracer, parent))
    }

    /// The span of a client's request, below that of the client's own.
    ///
    /// :param route: empty: none leads anywhere
    pub fn request(&self, request: &Request, peer: SocketAddr, route: &str) -> Context {
        let (method, uri) = (request.method().as_str(), request.uri());
        let name = if route.is_empty() { method.to_string() } else { format!("{method} {route}") };
        let forwarded = request.headers().get("x-forwarded-for").and_then(|it| it.to_str().ok()).unwrap_or_default();
        let peer_address = peer.ip().to_canonical().to_string();
        let texts = [
            ("client.address", forwarded),
            ("http.request.method", method),
            ("http.route", route),
            ("network.peer.address", &peer_address),
            ("network.protocol.name", "http"),
            ("url.path", uri.path()),
            ("url.query", uri.query().unwrap_or_default()),
            ("url.scheme", uri.scheme_str().unwrap_or("http")),
        ];
        let texts = texts.into_iter().filter(|(_, value)| !value.is_empty());
        let told = texts.map(|(name, value)| KeyValue::new(name, value.to_string()));
        let told = told.chain([KeyValue::new("network.peer.port", i64::from(peer.port()))]).collect();
        let parent = self.propagator.extract_with_context(&Context::new(), &HeaderExtractor(request.headers()));
        self.span(name, SpanKind::Server, told, &parent)
    }

    /// The work of a component, below what the request belongs to: whoever is to do it finds its :class:`Watch` there.
    pub fn component(self: &Arc<Self>, id: &str, request: &mut Request) {
        if let Some(requests) = &self.requests {
            let about = [("trigger_type", "http"), ("app_id", &self.application), ("component_id", id)];
            requests.add(1, &about.map(|(name, value)| KeyValue::new(name, value.to_string())));
        }
        let parent = request.extensions_mut().remove::<Context>().unwrap_or_default();
        let context = self.span(format!("execute_wasm_component {id}"), SpanKind::Internal, Vec::new(), &parent);
        request.extensions_mut().insert(Watch { teller: self.clone(), context, component: id.into() });
    }
}

impl Providers {
    fn end(&self, failures: &Failures) {
        let told = |done: OTelSdkResult| drop(done.inspect_err(|error| failures.tell(&error.to_string())));
        // At the same time: a server that hangs keeps no other from what is its.
        std::thread::scope(|scope| {
            scope.spawn(|| self.traces.as_ref().map(|it| told(it.shutdown())));
            scope.spawn(|| self.metrics.as_ref().map(|it| told(it.shutdown())));
            scope.spawn(|| self.logs.as_ref().map(|it| told(it.shutdown())));
        });
    }
}

/// What is done for a request is below this.
pub fn belongs(request: &mut Request, context: Context) {
    request.extensions_mut().insert(context);
}

/// How a client was answered.
pub fn answered(context: &Context, status: StatusCode) {
    let span = context.span();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if status.is_server_error() {
        span.set_attribute(KeyValue::new("error.type", status.as_str().to_string()));
        span.set_status(Status::error(""));
    }
}

/// Who is told of a guest's work, and where that belongs.
#[derive(Clone)]
pub struct Watch {
    teller: Arc<Teller>,
    context: Context,
    component: Arc<str>,
}

impl Watch {
    /// Standard output and error, of which each line is told; ``None``: they are not.
    pub fn lines(&self) -> Option<(lines::Watched, lines::Watched)> {
        let both = || (lines::Watched::stdout(self.clone()), lines::Watched::stderr(self.clone()));
        self.teller.logger.is_some().then(both)
    }

    fn line(&self, stream: &'static str, text: String) {
        let Some(logger) = &self.teller.logger else { return };
        let mut record = logger.create_log_record();
        record.set_observed_timestamp(std::time::SystemTime::now());
        record.set_body(AnyValue::from(text));
        record.add_attribute("component_id", self.component.to_string());
        record.add_attribute("log.iostream", stream);
        let span = self.context.span();
        let of = span.span_context();
        if of.is_valid() {
            record.set_trace_context(of.trace_id(), of.span_id(), Some(of.trace_flags()));
        }
        logger.emit(record);
    }

    /// A request of the guest's is sent, and takes the trace along.
    pub fn sent(
        &self,
        mut request: http::Request<WasiBody>,
        send: impl FnOnce(http::Request<WasiBody>) -> Sending,
    ) -> Sending {
        let (method, uri) = (request.method().as_str().to_string(), request.uri());
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let told = vec![
            KeyValue::new("http.request.method", method.clone()),
            KeyValue::new("server.address", uri.host().unwrap_or_default().to_string()),
            KeyValue::new("server.port", i64::from(port)),
            KeyValue::new("url.full", shown(uri)),
        ];
        let context = self.teller.span(method, SpanKind::Client, told, &self.context);
        if context.span().span_context().is_valid() {
            let (propagator, headers) = (&self.teller.propagator, request.headers_mut());
            propagator.fields().for_each(|name| drop(headers.remove(name)));
            propagator.inject_context(&context, &mut HeaderInjector(headers));
            if headers.get("tracestate").is_some_and(|it| it.is_empty()) {
                headers.remove("tracestate");
            }
        }
        request.extensions_mut().insert(context.clone()); // for a neighbour
        let sending = Box::into_pin(send(request));
        Box::new(async move {
            let done = sending.await;
            told_exchange(&context, &done);
            done
        })
    }
}

/// A URL without a user and a password.
fn shown(uri: &Uri) -> String {
    let host = uri.authority().map_or("", |it| it.as_str().rsplit('@').next().unwrap_or_default());
    let path = uri.path_and_query().map_or("", |it| it.as_str());
    format!("{}://{host}{path}", uri.scheme_str().unwrap_or("https"))
}

fn told_exchange(context: &Context, done: &Result<Exchange, Error>) {
    let span = context.span();
    match done {
        Ok((response, _)) => {
            let status = response.status();
            span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
            if status.is_client_error() || status.is_server_error() {
                span.set_status(Status::error(""));
            }
        }
        Err(error) => {
            let text = format!("{error:?}");
            let kind = text.split([' ', '{', '(']).next().unwrap_or_default().to_string();
            span.set_attribute(KeyValue::new("error.type", kind));
            span.set_status(Status::error(text));
        }
    }
}
