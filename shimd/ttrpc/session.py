"""One accepted connection: reads frames, runs calls, and ends in one of three ways.

* The peer closes it, or it breaks: every call is cancelled.
* :meth:`Session.stop`: new requests are refused, calls at work may end.
* :meth:`Session.detach`: it is given to another process, calls included.
"""

import contextlib
import logging
from typing import Any

import anyio
from anyio.abc import ByteStream, TaskGroup

from shimd.ttrpc._call import RunningCall
from shimd.ttrpc._inbox import Inbox
from shimd.ttrpc._link import Link
from shimd.ttrpc._logged_link import LoggedLink
from shimd.ttrpc.codes import Code
from shimd.ttrpc.envelope import Request
from shimd.ttrpc.errors import LocalProtocolError, RemoteProtocolError, StatusError
from shimd.ttrpc.events import DataReceived, NeedData, RequestReceived, ServerEvent, StreamRefused
from shimd.ttrpc.limits import Limits
from shimd.ttrpc.log import Log
from shimd.ttrpc.method import Call, Method, Services
from shimd.ttrpc.server_connection import ServerConnection

_logger = logging.getLogger("shimd.ttrpc")
#: What clients of streams are told then.
_MOVES = "the connection moves to another process"


class Session:
    """Made by :meth:`shimd.ttrpc.server.Server.open`; :meth:`run` it once."""

    def __init__(
        self, services: Services, stream: ByteStream, limits: Limits, replay: bytes, log: Log | None = None
    ) -> None:
        self._services = services
        self._stream = stream
        self._limits = limits
        self._connection = ServerConnection()
        self._connection.receive_data(replay)
        self._link = Link(stream, limits.write_buffer) if log is None else LoggedLink(stream, limits.write_buffer, log)
        self._log = log
        self._replaying = bool(replay)
        self._calls: dict[int, RunningCall] = {}
        self._call_ended: anyio.Event | None = None
        self._reading = anyio.CancelScope()
        self._whole = anyio.CancelScope()
        self._stopping = False
        self._detaching = False
        self._replay: bytes | None = None
        self._finished = anyio.Event()

    async def run(self) -> None:
        """Serve the connection to its end, and close it. Whatever the peer does, nothing is raised."""
        try:
            with self._whole:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._write)
                    await self._serve()
                    group.cancel_scope.cancel()
            if self._log is not None and self._replay is None:  # else it moves to a successor
                self._log.ended()
        finally:
            if self._replay is None:
                await anyio.aclose_forcefully(self._stream)
            self._finished.set()

    def stop(self) -> None:
        """Let :meth:`run` return as soon as no call is at work; refuse new ones."""
        self._stopping = True
        if not self._calls:
            self._reading.cancel()

    def abort(self) -> None:
        """Let :meth:`run` return at once; calls at work are cancelled."""
        self._whole.cancel()

    async def detach(self) -> bytes:
        """Let :meth:`run` return with the stream left open, and give what the next owner of the socket has to pass to
        :meth:`~shimd.ttrpc.server.Server.open`. Calls at work are cancelled: unary ones begin anew there, streaming
        ones are answered ``UNAVAILABLE``.

        :raises LocalProtocolError: it ended meanwhile, or cannot be given away; it is closed then
        """
        self._detaching = True
        self._reading.cancel()
        await self._finished.wait()
        if self._replay is None:
            raise LocalProtocolError("the connection ended while it was being detached")
        return self._replay

    async def _serve(self) -> None:
        async with anyio.create_task_group() as calls:
            with self._reading:
                await self._read(calls)
                self._whole.cancel()  # the peer is gone
            if self._detaching:
                calls.cancel_scope.cancel()
        if self._detaching:
            self._refuse_streams()
        await self._link.flushed()
        if self._detaching and not self._link.broken:
            with contextlib.suppress(LocalProtocolError):
                self._replay = self._connection.replay()

    async def _write(self) -> None:
        await self._link.run()
        self._whole.cancel()

    async def _read(self, calls: TaskGroup) -> None:
        """Handle events until the peer closes the connection or it breaks."""
        try:
            while True:
                event = self._connection.next_event()
                if isinstance(event, NeedData):
                    self._replaying = False
                    self._connection.receive_data(await self._link.receive())
                else:
                    await self._handle(event, calls)
        except anyio.EndOfStream:
            try:
                self._connection.receive_eof()
            except RemoteProtocolError as error:
                _logger.debug("%s", error)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            _logger.debug("connection broke: %r", error)

    async def _handle(self, event: ServerEvent, calls: TaskGroup) -> None:
        if isinstance(event, RequestReceived):
            try:
                await self._begin(event, calls)
            except StatusError as error:
                await self._refuse(event.stream_id, error.code, error.message)
        elif isinstance(event, DataReceived):
            await self._deliver(event)
        elif isinstance(event, StreamRefused):
            await self._refused(event)

    async def _begin(self, event: RequestReceived, calls: TaskGroup) -> None:
        """Start the call.

        :raises StatusError: it cannot be
        """
        method = self._find(event)
        await self._call_room()
        request = event.request
        call = Call(request.service, request.method, request.metadata, _deadline(request), self._replaying)
        inbox = self._inbox(event) if method.client_streaming else None
        running = self._calls[event.stream_id] = RunningCall(event.stream_id, method, call, request.payload, inbox)
        calls.start_soon(self._run, running)

    def _find(self, event: RequestReceived) -> Method[Any, Any]:
        request = event.request
        if self._stopping:
            raise StatusError(Code.UNAVAILABLE, "server is shutting down")
        if (service := self._services.get(request.service)) is None:
            raise StatusError(Code.UNIMPLEMENTED, f"service {request.service}")
        if (method := service.get(request.method)) is None:
            raise StatusError(Code.UNIMPLEMENTED, f"method {request.method}")
        if self._replaying and not event.unary:
            raise StatusError(Code.UNAVAILABLE, _MOVES)
        if method.server_streaming and event.unary:
            raise StatusError(Code.INVALID_ARGUMENT, f"method {request.method} streams, and the call is unary")
        return method

    async def _call_room(self) -> None:
        """Wait until one more call may be at work: meanwhile nothing is read."""
        if len(self._calls) < self._limits.calls:
            return
        self._call_ended = anyio.Event()
        with anyio.move_on_after(self._limits.patience):
            await self._call_ended.wait()
        self._call_ended = None
        if len(self._calls) >= self._limits.calls:
            raise StatusError(Code.RESOURCE_EXHAUSTED, f"{len(self._calls)} calls are at work on this connection")

    def _inbox(self, event: RequestReceived) -> Inbox:
        """A request that opens a stream may carry its first message; an empty one is none, as in Go."""
        inbox = Inbox(self._limits.stream_buffer)
        if event.request.payload:
            inbox.put_nowait(event.request.payload)
        if event.closed:
            inbox.end()
        return inbox

    async def _run(self, running: RunningCall) -> None:
        try:
            await running.run(self._connection, self._link)
        finally:
            del self._calls[running.stream_id]
            if self._call_ended is not None:
                self._call_ended.set()
            if self._stopping and not self._calls:
                self._reading.cancel()

    async def _deliver(self, event: DataReceived) -> None:
        """Hand a message to its call; the call fails if it does not take it in time."""
        running = self._calls.get(event.stream_id)
        if running is None or running.inbox is None:
            return  # it is about to end, or its method takes no stream
        if event.data is not None:
            with anyio.move_on_after(self._limits.patience) as scope:
                await running.inbox.put(event.data)
            if scope.cancelled_caught:
                await self._refuse(event.stream_id, Code.RESOURCE_EXHAUSTED, "data handling error: stream buffer full")
        if event.last:
            running.inbox.end()

    async def _refuse(self, stream_id: int, code: int, message: str) -> None:
        if self._connection.is_open(stream_id):
            await self._refused(self._connection.refuse(stream_id, code, message))

    async def _refused(self, event: StreamRefused) -> None:
        if (running := self._calls.get(event.stream_id)) is not None:
            running.abandon()
        await self._link.room()
        self._link.push(event.reply)

    def _refuse_streams(self) -> None:
        """Before the connection moves: streams cannot."""
        for stream_id in self._connection.streaming():
            refusal = self._connection.refuse(stream_id, Code.UNAVAILABLE, _MOVES)
            self._link.push(refusal.reply)


def _deadline(request: Request) -> float | None:
    return anyio.current_time() + request.timeout_nano / 1e9 if request.timeout_nano else None
