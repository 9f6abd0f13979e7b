"""From generated services to the wire: one implementation is served over ttrpc and over gRPC.

::

    class Tasks(TaskBase):                       # shimd.api.containerd.task.v3
        async def create(self, message: CreateTaskRequest) -> CreateTaskResponse: …

    ttrpc.Server(ttrpc_services(Tasks(), aliases=["containerd.task.v2.Task"]))
    grpclib.server.Server([GrpcService(Tasks(), aliases=["containerd.task.v2.Task"])])

An alias is another name of the same service whose messages are the same on the wire, as those of Task v2 and v3 are.

Both ways an implementation raises :class:`~shimd.errors.ShimdError` to answer with an error, and asks :func:`namespace`
for the caller's containerd namespace, and :func:`replayed` whether the request is an old one. An ``OSError`` is told in
one sentence (``errors.plain``). What else it raises is a bug: it is logged with its traceback, and the caller gets
``INTERNAL``.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol

import anyio
from grpclib import GRPCError
from grpclib.const import Cardinality, Handler, Status

from shimd import strict
from shimd.errors import Code, plain
from shimd.ttrpc.errors import StatusError
from shimd.ttrpc.method import Call, Method

_logger = logging.getLogger("shimd.rpc")

#: Where containerd puts the namespace (pkg/namespaces in its sources); 1.6 does not, in calls of the Task service.
TTRPC_NAMESPACE = "containerd-namespace-ttrpc"
GRPC_NAMESPACE = "containerd-namespace"

_namespace: ContextVar[str | None] = ContextVar("namespace", default=None)
_replayed: ContextVar[bool] = ContextVar("replayed", default=False)
_metadata: ContextVar[Callable[[str], str | None]] = ContextVar("metadata", default=lambda _name: None)
#: Where callers say which trace a call is part of (W3C's Trace Context), as containerd's OpenTelemetry does.
_TRACE = ("traceparent", "tracestate")


Func = Callable[[Any], Awaitable[None]]
"""Handles one call, which it is given as a stream of grpclib's."""


class Implementation(Protocol):
    """An instance of a generated ``…Base`` class."""

    def __mapping__(self) -> dict[str, Handler]: ...


class Wrapped:
    """An implementation around whose calls something is done.

    :param around: makes of a route and what handles its calls what does so instead
    """

    def __init__(self, implementation: Implementation, around: Callable[[str, Func], Func]) -> None:
        self._implementation, self._around = implementation, around

    def __mapping__(self) -> dict[str, Handler]:
        found = self._implementation.__mapping__()
        return {route: handler._replace(func=self._around(route, handler.func)) for route, handler in found.items()}


def namespace() -> str | None:
    """The containerd namespace that the caller of the current request named, if it did."""
    return _namespace.get()


def replayed() -> bool:
    """Returns whether an earlier supervisor had the current request, and may have done all of it but answer."""
    return _replayed.get()


def trace_context() -> Mapping[str, str]:
    """What the caller of the current request says of the trace that it is part of, by the names of W3C's headers."""
    value_of = _metadata.get()
    return {name: value for name in _TRACE if (value := value_of(name))}


def status_of(error: Exception, route: str) -> tuple[int, str]:
    """The code and message to answer with: the one place where exceptions become statuses."""
    if (told := plain(error)) is not None:
        return told.code, str(told)
    if isinstance(error, GRPCError):  # what generated classes raise for a method that is not implemented
        return error.status.value, error.message or f"{route} is not implemented"
    return Code.INTERNAL, f"{type(error).__name__}: {error}"


def _answer(error: Exception, route: str) -> tuple[int, str]:
    """The same, with a line in the log of what is not the caller's to see to."""
    told = plain(error)
    if told is not None and told is not error:
        _logger.error("%s: %s", route, told)
    elif told is None and not isinstance(error, GRPCError):
        _logger.error("%s failed", route, exc_info=error)
    return status_of(error, route)


def ttrpc_services(
    implementation: Implementation, aliases: Iterable[str] = ()
) -> dict[str, dict[str, Method[Any, Any]]]:
    """Returns the services for :class:`shimd.ttrpc.Server`.

    :raises TypeError: a method of the service streams; shimd serves such only over gRPC
    """
    services: dict[str, dict[str, Method[Any, Any]]] = {}
    for route, handler in _routes(implementation, aliases).items():
        if handler.cardinality is not Cardinality.UNARY_UNARY:
            raise TypeError(f"{route} streams")
        _, service, method = route.split("/")
        handle = _ttrpc_handler(route, handler.func)
        decode = partial(strict.parse, handler.request_type)
        services.setdefault(service, {})[method] = Method.unary(handle, decode, bytes)
    return services


class GrpcService:
    """A service for :class:`grpclib.server.Server`."""

    def __init__(self, implementation: Implementation, aliases: Iterable[str] = ()) -> None:
        routes = _routes(implementation, aliases)
        self._mapping = {
            route: handler._replace(func=_grpc_handler(route, handler.func)) for route, handler in routes.items()
        }

    def __mapping__(self) -> Mapping[str, Handler]:
        return self._mapping


def _routes(implementation: Implementation, aliases: Iterable[str]) -> dict[str, Handler]:
    mapping = implementation.__mapping__()
    renamed = {f"/{alias}/{route.rpartition('/')[2]}": route for alias in aliases for route in mapping}
    return mapping | {alias: mapping[route] for alias, route in renamed.items()}


class _UnaryStream:
    """The part of grpclib's stream that the generated code for a unary method uses."""

    __slots__ = ("request", "response")

    def __init__(self, request: Any) -> None:
        self.request = request
        self.response: Any = None

    async def recv_message(self) -> Any:
        return self.request

    async def send_message(self, message: Any) -> None:
        self.response = message


def _ttrpc_handler(route: str, func: Callable[[Any], Awaitable[None]]) -> Callable[[Call, Any], Awaitable[Any]]:
    async def handle(call: Call, request: Any) -> Any:
        _namespace.set(call.get(TTRPC_NAMESPACE))  # the call has a task, and so a context, of its own
        _replayed.set(call.replayed)
        _metadata.set(call.get)
        stream = _UnaryStream(request)
        try:
            await func(stream)
        except Exception as error:
            raise StatusError(*_answer(error, route)) from error
        return stream.response

    return handle


def _grpc_handler(route: str, func: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    async def handle(stream: Any) -> None:
        metadata = stream.metadata or {}
        _namespace.set(metadata.get(GRPC_NAMESPACE))
        _metadata.set(metadata.get)
        failures: list[GRPCError] = []

        async def call() -> None:
            try:
                await func(stream)
            except Exception as error:
                code, message = _answer(error, route)
                failures.append(GRPCError(Status(code), message))

        # When a caller hangs up, grpclib cancels our task by asyncio's own means, which no shield of anyio's
        # withstands: half of a Delete would be done. A task group makes that a cancellation of its scope.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
        if failures:
            raise failures[0]

    return handle
