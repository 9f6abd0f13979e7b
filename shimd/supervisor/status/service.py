"""The status socket: what operators may ask (``proto/shimd/status/v1/status.proto``), over gRPC, root only."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from typing import Any

import anyio
import anyio.abc
from grpclib.server import Server, Stream

from shimd import paths
from shimd.api.shimd.status import v1 as api
from shimd.errors import ResourceExhausted, ShimdError, from_os
from shimd.log import logger
from shimd.rpc import GrpcService
from shimd.supervisor.events import Event
from shimd.supervisor.status import report
from shimd.supervisor.status.history import Happened, Line, LogRing, Ring, happened, naming, now
from shimd.supervisor.supervisor import Supervisor
from shimd.supervisor.threads import in_thread
from shimd.timestamp import timestamp

_log = logger(__name__)
#: What is kept for operators: some 100 KiB of each.
EVENTS = 512
LINES = 1000
#: Seconds until the next attempt to listen.
_PAUSE = 5.0
#: Seconds for what takes reading many files.
_MEASURING = 10.0
#: Streams open at a time.
MAX_STREAMS = 64


class StatusService(api.StatusBase):
    def __init__(self, supervisor: Supervisor, log: Ring[Line]) -> None:
        self._supervisor = supervisor
        self._log = log
        self._events: Ring[Happened] = Ring(EVENTS)
        self._started_at = now()
        self._streams = 0

    def remember(self, event: Event) -> None:
        """To be subscribed to the event bus."""
        self._events.append(happened(event))

    async def daemon(self, message: api.DaemonRequest) -> api.DaemonResponse:
        response = report.daemon(self._supervisor, self._started_at)
        measure = partial(report.cache, self._supervisor.modules.cache.directory)
        with suppress(ShimdError, OSError):  # a disk that hangs is no reason to say nothing
            response.cache = await in_thread(measure, "measuring the cache", limit=_MEASURING, shared=True)
        return response

    async def tasks(self, message: api.TasksRequest) -> api.TasksResponse:
        found = report.tasks(self._supervisor, message.namespace, message.id)
        if message.usage:
            await in_thread(partial(report.measure, found), "measuring tasks", limit=_MEASURING)
        creating = report.creating(self._supervisor, message.namespace, message.id)
        return api.TasksResponse(tasks=[*(task for _container, task in found), *creating])

    async def events(self, message: api.EventsRequest) -> AsyncIterator[api.Event]:
        def wanted(event: Happened) -> bool:
            return message.namespace in ("", event.namespace) and message.container_id in ("", event.container)

        async with aclosing(self._events.read(message.last, message.follow, wanted)) as items:
            async for event, lost in items:
                yield _event(event, lost)

    async def logs(self, message: api.LogsRequest) -> AsyncIterator[api.LogRecord]:
        wanted = naming(message.container_id)
        async with aclosing(self._log.read(message.last, message.follow, wanted)) as items:
            async for line, lost in items:
                time = timestamp(int(line.time * 1e9))
                yield api.LogRecord(time=time, level=line.level, message=line.message, lost=lost)

    async def _call_rpc_handler_server_stream(
        self, handler: Callable[[Any], AsyncGenerator[Any, None]], stream: "Stream[Any, Any]", request: Any
    ) -> None:
        """Do as the base class does, but with a limit; the generator ends with the stream, not when it is collected."""
        with self._one_stream():
            await stream.send_initial_metadata()  # a caller that follows knows now that it is heard
            async with aclosing(handler(request)) as messages:
                async for message in messages:
                    await stream.send_message(message)

    @contextmanager
    def _one_stream(self) -> Iterator[None]:
        if self._streams >= MAX_STREAMS:
            raise ResourceExhausted(f"{MAX_STREAMS} callers follow events or logs already")
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1


def _event(event: Happened, lost: int) -> api.Event:
    return api.Event(
        time=event.time,
        namespace=event.namespace,
        topic=event.topic,
        container_id=event.container,
        exec_id=event.exec,
        pid=event.pid,
        exit_status=event.status,
        lost=lost,
    )


class StatusServer:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Serve on :func:`shimd.paths.status_socket` until cancelled."""
        with LogRing(LINES) as log:
            service = StatusService(self._supervisor, log.ring)
            with self._remembering(service):
                server = await _listening(service)
                task_status.started()  # in any case: the apps matter more than who asks about them
                while server is None:
                    await anyio.sleep(_PAUSE)
                    server = await _listening(service)
                try:
                    await anyio.sleep_forever()
                finally:
                    server.close()

    @contextmanager
    def _remembering(self, service: StatusService) -> Iterator[None]:
        self._supervisor.bus.subscribers.add(service.remember)
        try:
            yield
        finally:
            self._supervisor.bus.subscribers.discard(service.remember)


async def _listening(service: StatusService) -> Server | None:
    """Listen on the status socket, in place of what a killed daemon left there; ``None``: that is not possible now."""
    path, server = paths.status_socket(), Server([GrpcService(service)])
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        await server.start(path=str(path))
    except OSError as error:
        _log.error("operators cannot ask this daemon yet: %s", from_os(error))
        return None
    path.chmod(0o600)
    return server
