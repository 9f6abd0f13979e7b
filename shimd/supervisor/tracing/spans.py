"""Spans by OpenTelemetry's SDK, which sends them from a thread of its own."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib import import_module
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import shimd
from shimd.errors import Code
from shimd.log import logger
from shimd.otlp import GRPC, endpoint, limit, servers, take_logs
from shimd.rpc import Func, Implementation, Wrapped, status_of, trace_context

_log = logger(__name__)
_EXPORTERS = {True: "opentelemetry.exporter.otlp.proto.grpc", False: "opentelemetry.exporter.otlp.proto.http"}
_PROPAGATOR = TraceContextTextMapPropagator()
#: Seconds between two sentences of spans that are lost.
_QUIET = 600.0
#: A call that lasts as long as an app, and says nothing of the daemon.
_UNTOLD = frozenset({"Wait"})
_CONTAINERD = "containerd"
OneSpan = AbstractContextManager[trace.Span]


class Spans:
    """Of one daemon, from its beginning."""

    def __init__(self, protocol: str, env: Mapping[str, str]) -> None:
        """
        :raises ModuleNotFoundError: a library is not installed
        """
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what goes wrong is told by us
        exporter = import_module(f"{_EXPORTERS[protocol == GRPC]}.trace_exporter").OTLPSpanExporter
        made = exporter(timeout=limit(env, "traces"))
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(made))
        self._tracer = self._provider.get_tracer("shimd")
        take_logs(_Failures(servers(env, ["traces"])))
        _log.info("spans are sent to %s", endpoint(env, "traces").rpartition("@")[2])

    def calls(self, engine: str, namespace: str, service: Implementation) -> Implementation:
        """Returns what is to be served in place of a Task service."""
        told = {"shimd.engine": engine, "shimd.namespace": namespace}
        return Wrapped(service, partial(self._traced, told))

    def _traced(self, told: Mapping[str, str], route: str, func: Func) -> Func:
        """Have each call be a span, below its caller's."""
        _, service, method = route.split("/")
        if method in _UNTOLD:
            return func
        plain = {"rpc.system": "ttrpc", "rpc.service": service, "rpc.method": method, **told}

        async def traced(stream: Any) -> None:
            parent = _PROPAGATOR.extract(trace_context())
            with self._span(route[1:], parent, SpanKind.SERVER, plain) as span:
                request = getattr(stream, "request", None)
                for name, field in (("shimd.container", "id"), ("shimd.exec", "exec_id")):
                    if value := getattr(request, field, ""):
                        span.set_attribute(name, value)
                with _told(span, route):
                    await func(stream)

        return traced

    @contextmanager
    def step(self, name: str, told: dict[str, str | int]) -> Iterator[None]:
        """Below what goes on; a step of nothing that anybody has asked for has no span."""
        if not trace.get_current_span().get_span_context().is_valid:
            yield
            return
        with self._span(name, None, SpanKind.INTERNAL, told) as span, _told(span, name):
            yield

    def _span(self, name: str, parent: Context | None, kind: SpanKind, told: Mapping[str, str | int]) -> OneSpan:
        """What goes wrong within is told by :func:`_told`, and not where in shimd it was."""
        return self._tracer.start_as_current_span(
            name, parent, kind, told, record_exception=False, set_status_on_exception=False
        )

    def end(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _resource() -> Resource:
    """Whose spans they are: what the variables say goes before, but for the name that containerd gives itself by them,
    which a daemon that a launcher has started inherits."""
    said = {name: value for name, value in OTELResourceDetector().detect().attributes.items() if value != _CONTAINERD}
    return Resource.create({"service.name": "shimd", "service.version": shimd.__version__, **said})


@contextmanager
def _told(span: trace.Span, what: str) -> Iterator[None]:
    """Have an error be told that leaves it."""
    try:
        yield
    except Exception as error:
        code, text = status_of(error, what)
        span.set_attribute("error.type", Code(code).name)
        span.set_status(Status(StatusCode.ERROR, text))
        raise


class _Failures(logging.Handler):
    """Tells of spans that are lost, now and then: a server that is away would fill the log."""

    def __init__(self, server: str) -> None:
        super().__init__(logging.ERROR)
        self._server = server
        self._told = -_QUIET

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() - self._told >= _QUIET:
            self._told = time.monotonic()
            _log.warning("spans for %s are lost: %s", self._server, record.getMessage())
