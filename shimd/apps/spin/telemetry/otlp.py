"""Spans, metrics and logs of an application, by OpenTelemetry's SDK, which sends them from threads of its own."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import httpcore
from anyio import to_thread
from opentelemetry import _logs, context, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shimd.apps.calls import UNLIMITED, report_error
from shimd.apps.http.handler import AsgiReceive, AsgiScope, AsgiSend
from shimd.apps.spin import routes
from shimd.apps.spin.model import Application
from shimd.apps.spin.telemetry import Call, Telemetry, exporters, lines, names
from shimd.component.providers import Function
from shimd.component.results import Case, Err
from shimd.engine import EngineError
from shimd.otlp import servers, take_logs
from shimd.wasi.http.in_process import AsgiApplication
from shimd.wasi.http.outgoing import Sender
from shimd.wasi.trust import Trust

#: Seconds at the application's end for what is not sent yet.
_FLUSH = 3.0
_NAME = "spin"
_SERVICE = "service.name"
#: Paths that are answered for an application, whatever its routes.
_OWN_PATHS = ("/.well-known/spin/health", "/.well-known/spin/info")
_PROPAGATOR = TraceContextTextMapPropagator()


class Otlp(Telemetry):
    """Made before the container is entered, where libraries are in sight; it sends once it is entered itself."""

    def __init__(
        self, protocols: Mapping[str, str], env: Mapping[str, str], application: Application, trust: Trust
    ) -> None:
        """:param protocols: by signal

        :raises ModuleNotFoundError: a library is not installed
        """
        exporters.load(protocols)
        exporters.adopt(env)
        context.get_current()  # has its implementation looked for
        self._protocols, self._application, self._trust = protocols, application, trust
        self._failures = _Failures(servers(env, protocols))
        self._ends: list[Callable[[], None]] = []
        self._tracer: trace.Tracer = trace.NoOpTracer()
        self._logger: _logs.Logger = _logs.NoOpLogger(_NAME)
        self._count(metrics.NoOpMeter(_NAME))

    async def __aenter__(self) -> "Otlp":
        take_logs(self._failures)
        try:
            self._start()
        except Exception as error:  # what the libraries say of a variable's value
            raise EngineError(f"telemetry cannot start, by the OTEL_ variables: {error}") from None
        return self

    def _start(self) -> None:
        resource = _resource(self._application)
        made = {signal: exporters.exporter(signal, how, self._trust) for signal, how in self._protocols.items()}
        if "traces" in made:
            tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
            tracers.add_span_processor(BatchSpanProcessor(made["traces"]))
            self._tracer = tracers.get_tracer(_NAME)
            self._ends.append(tracers.shutdown)
        if "metrics" in made:
            reader = PeriodicExportingMetricReader(made["metrics"])
            meters = MeterProvider([reader], resource, shutdown_on_exit=False)
            self._count(meters.get_meter(_NAME))
            self._ends.append(meters.shutdown)
        if "logs" in made:
            loggers = LoggerProvider(resource, shutdown_on_exit=False)
            loggers.add_log_record_processor(BatchLogRecordProcessor(made["logs"]))
            self._logger = loggers.get_logger(_NAME)
            self._ends.append(loggers.shutdown)

    async def __aexit__(self, *_exception: Any) -> None:
        """Send what is left, for a while: a thread that is still about it ends with the process."""
        with anyio.move_on_after(_FLUSH) as limit:
            async with anyio.create_task_group() as tasks:
                for end in self._ends:
                    run = partial(to_thread.run_sync, abandon_on_cancel=True, limiter=UNLIMITED)
                    tasks.start_soon(run, self._finish, end)
        if limit.cancelled_caught:
            self._failures.tell(f"what is left was not taken within {_FLUSH:g} s of the end")

    def _finish(self, end: Callable[[], None]) -> None:
        try:
            end()
        except Exception as error:  # of the libraries: it is not the application's
            self._failures.tell(str(error))

    def _count(self, meter: metrics.Meter) -> None:
        self._requests = meter.create_counter("spin.request_count")
        self._infers = meter.create_counter("spin.llm_infer")

    def _counted(self, trigger: str, id: str) -> None:
        self._requests.add(1, {"trigger_type": trigger, "app_id": self._application.name, "component_id": id})

    def server(self, server: AsgiApplication) -> AsgiApplication:
        async def watched(scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
            if scope["type"] != "http":
                await server(scope, receive, send)
                return
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            route = _route(self._application, scope["raw_path"].decode("latin-1"))
            name = f"{scope['method']} {route}" if route else scope["method"]
            told = _request(scope, headers, route)
            parent = _PROPAGATOR.extract(headers)
            with self._tracer.start_as_current_span(name, parent, SpanKind.SERVER, told) as span:
                await server(scope, receive, _noting(span, send))

        return watched

    def component(self, id: str, handler: AsgiApplication) -> AsgiApplication:
        async def watched(scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
            self._counted("http", id)
            with self._tracer.start_as_current_span(f"execute_wasm_component {id}"):
                await handler(scope, receive, send)

        return watched

    def call(self, trigger: str, id: str, source: str, call: Call) -> Call:
        name = f"{source} receive" if source else f"execute_wasm_component {id}"
        told = {"messaging.operation": "receive", "messaging.system": trigger} if source else {}
        kind = SpanKind.CONSUMER if source else SpanKind.INTERNAL

        async def watched(*arguments: Any) -> Any:
            self._counted(trigger, id)
            with self._tracer.start_as_current_span(name, context.Context(), kind, told):
                return await call(*arguments)

        return watched

    def function(self, interface: str, name: str, function: Function) -> Function:
        called = names.called(interface, name)
        if called is None:
            return function
        kind = SpanKind.PRODUCER if called.produces else SpanKind.CLIENT

        def watched(*arguments: Any) -> Any:
            if called.plain == "spin_llm.infer":
                self._infers.add(1, {"model_name": arguments[0]})
            with self._span(called.name(arguments), kind, called.told(arguments)) as span:
                answer = function(*arguments)
                if isinstance(answer, Err):
                    _failed(span, answer)
                return answer

        return watched

    def sender(self, sender: Sender) -> Sender:
        return _WatchedSender(self, sender)

    def headers(self) -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier

    def streams(self, id: str) -> Mapping[str, object]:
        def tell(stream: str, line: str) -> None:
            self._logger.emit(body=line, attributes={"component_id": id, "log.iostream": stream})

        return lines.streams(tell)

    @contextmanager
    def _span(self, name: str, kind: SpanKind, told: Mapping[str, Any]) -> Iterator[Span]:
        """A span of something that a component has done for it; a failure is told, and not where in shimd it was."""
        with self._tracer.start_as_current_span(
            name, None, kind, told, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Exception as error:
                _failed(span, error)
                raise


class _WatchedSender:
    """Sends one request, and takes the trace along."""

    def __init__(self, telemetry: Otlp, sender: Sender) -> None:
        self._telemetry, self._sender = telemetry, sender

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        method, url = request.method.decode("latin-1"), request.url
        host, port = url.host.decode("latin-1"), url.port or (443 if url.scheme == b"https" else 80)
        told = {
            "http.request.method": method,
            "server.address": host,
            "server.port": port,
            "url.full": bytes(url).decode("latin-1"),
        }
        with self._telemetry._span(method, SpanKind.CLIENT, told) as span:
            carried = {name.encode(): value.encode() for name, value in self._telemetry.headers().items()}
            sent = [(name, value) for name, value in request.headers if name.lower() not in carried]
            request.headers = [*sent, *carried.items()]
            response = await self._sender.handle_async_request(request)
            span.set_attribute("http.response.status_code", response.status)
            if response.status >= 400:
                span.set_status(Status(StatusCode.ERROR))
            return response


def _resource(application: Application) -> Resource:
    """What all that is told belongs to: what the variables say goes before."""
    plain = {_SERVICE: application.name, "service.version": application.version}
    return Resource.create({**plain, **OTELResourceDetector().detect().attributes})


def _route(application: Application, path: str) -> str:
    if path in _OWN_PATHS:
        return path
    match = routes.find(application.triggers.http, path)
    return (match.route.path or "") if match else ""


def _request(scope: AsgiScope, headers: Mapping[str, str], route: str) -> dict[str, str | int]:
    client = scope.get("client") or ("", 0)
    told: dict[str, str | int] = {
        "client.address": headers.get("x-forwarded-for", ""),
        "http.request.method": scope["method"],
        "http.route": route,
        "network.peer.address": client[0],
        "network.peer.port": client[1],
        "network.protocol.name": "http",
        "url.path": scope["raw_path"].decode("latin-1"),
        "url.query": scope["query_string"].decode("latin-1"),
        "url.scheme": scope["scheme"],
    }
    return {name: value for name, value in told.items() if value}


def _noting(span: Span, send: AsgiSend) -> AsgiSend:
    """Have a span say how the request was answered."""

    async def noting(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_attribute("error.type", str(status))
                span.set_status(Status(StatusCode.ERROR))
        await send(message)

    return noting


def _failed(span: Span, error: Err | Exception) -> None:
    value = error.value if isinstance(error, Err) else error
    if isinstance(value, Case):
        text = f"{value.tag}: {value.payload}" if isinstance(value.payload, str) else value.tag
        span.set_attribute("error.type", value.tag)
    else:
        text = str(value)
        span.set_attribute("error.type", type(value).__name__)
    span.set_status(Status(StatusCode.ERROR, text))


class _Failures(logging.Handler):
    """Tells of the first failure; an endpoint that is dead would fill the application's log."""

    def __init__(self, servers: str) -> None:
        super().__init__(logging.ERROR)
        self._servers = servers
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        self.tell(record.getMessage())

    def tell(self, text: str) -> None:
        if not self._told:
            self._told = True
            report_error("", f"telemetry for {self._servers} is lost (this is told once): {text}")
