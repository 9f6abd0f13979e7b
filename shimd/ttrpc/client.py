"""A ttrpc client above any anyio byte stream.

::

    async with Client(await anyio.connect_unix(path)) as client:
        reply = await client.call("greet.v1.Greeter", "Hello", HelloRequest(name="you"), HelloResponse)
        async with await client.stream("greet.v1.Greeter", "Watch", bytes(request)) as stream:
            async for payload in stream: …

Calls may be made from many tasks at once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeVar

import anyio
from anyio.abc import ByteStream

from shimd.ttrpc._inbox import Inbox
from shimd.ttrpc._link import Link
from shimd.ttrpc.client_connection import ClientConnection
from shimd.ttrpc.client_stream import ClientStream
from shimd.ttrpc.codes import Code
from shimd.ttrpc.envelope import Request, Response
from shimd.ttrpc.errors import ConnectionClosed, RemoteProtocolError, StatusError
from shimd.ttrpc.events import ClientEvent, DataReceived, NeedData, ResponseReceived, StreamFailed
from shimd.ttrpc.limits import DEFAULT_LIMITS, Limits

MessageT = TypeVar("MessageT", covariant=True)


class Encodable(Protocol):
    """A message of any protobuf library."""

    def SerializeToString(self) -> bytes: ...


class Decodable(Protocol[MessageT]):
    """A message class of any protobuf library."""

    def FromString(self, data: bytes, /) -> MessageT: ...


@dataclass(slots=True)
class _Pending:
    """A call that waits for the server."""

    inbox: Inbox
    one_response: bool


class Client:
    """One connection to a server; an asynchronous context manager that closes it."""

    def __init__(self, stream: ByteStream, limits: Limits = DEFAULT_LIMITS) -> None:
        self._stream = stream
        self._limits = limits
        self._connection = ClientConnection()
        self._link = Link(stream, limits.write_buffer)
        self._pending: dict[int, _Pending] = {}
        self._closed = anyio.Event()

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._read)
        self._group.start_soon(self._write)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close("the client was closed")
        self._group.cancel_scope.cancel()
        try:
            # The group's own tasks raise nothing. The body's exception is not for the group, which would wrap it.
            await self._group.__aexit__(None, None, None)
        finally:
            await anyio.aclose_forcefully(self._stream)

    @property
    def closed(self) -> bool:
        """Returns whether the connection has ended: all calls from now on fail."""
        return self._closed.is_set()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended."""
        await self._closed.wait()

    async def unary(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  (the server is told, too)
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """Make a call of one request and one response, both encoded.

        :param timeout: seconds; the server is told, too
        :raises StatusError: the server answered with an error, or not in time (``DEADLINE_EXCEEDED``)
        :raises ConnectionClosed: no answer came, or none can come
        :raises RemoteProtocolError: the answer was none
        :raises MessageTooLarge: the request does not fit into a frame
        """
        request = _request(service, method, payload, timeout, metadata)
        with anyio.move_on_after(timeout):
            stream_id, inbox = await self._begin(request, one_response=True)
            try:
                return await inbox.get() or b""
            finally:
                self._forget(stream_id)
        raise StatusError(Code.DEADLINE_EXCEEDED, "context deadline exceeded")

    async def call(
        self,
        service: str,
        method: str,
        request: Encodable,
        reply: Decodable[MessageT],
        *,
        timeout: float | None = None,  # noqa: ASYNC109  (the server is told, too)
        metadata: Mapping[str, str] | None = None,
    ) -> MessageT:
        """Call a method, as :meth:`unary` does, with messages.

        :param reply: the message class of the response
        """
        payload = request.SerializeToString()
        return reply.FromString(await self.unary(service, method, payload, timeout=timeout, metadata=metadata))

    async def stream(
        self,
        service: str,
        method: str,
        payload: bytes = b"",
        *,
        client_streaming: bool = False,
        server_streaming: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109  (the server is told, too)
        metadata: Mapping[str, str] | None = None,
    ) -> ClientStream:
        """Begin a call in which one side or both send any number of messages.

        :param payload: the request, if the client does not stream
        :param timeout: seconds after which the server ends the call with ``DEADLINE_EXCEEDED``
        :raises ConnectionClosed: the connection has ended
        :raises MessageTooLarge: the request does not fit into a frame
        """
        request = _request(service, method, payload, timeout, metadata)
        stream_id, inbox = await self._begin(
            request, unary=False, closed=not client_streaming, one_response=not server_streaming
        )
        return ClientStream(self._connection, self._link, stream_id, inbox, self._forget)

    async def _begin(
        self, request: Request, *, one_response: bool, unary: bool = True, closed: bool = True
    ) -> tuple[int, Inbox]:
        await self._link.room()
        if self.closed:
            raise ConnectionClosed("the connection has ended")
        stream_id, data = self._connection.send_request(request, unary=unary, closed=closed)
        pending = self._pending[stream_id] = _Pending(Inbox(self._limits.stream_buffer), one_response)
        self._link.push(data)
        return stream_id, pending.inbox

    def _forget(self, stream_id: int) -> None:
        self._pending.pop(stream_id, None)
        self._connection.forget(stream_id)

    def _close(self, reason: str) -> None:
        self._closed.set()
        for pending in self._pending.values():
            pending.inbox.end(ConnectionClosed(reason))

    async def _write(self) -> None:
        await self._link.run()
        self._close("the connection broke")

    async def _read(self) -> None:
        reason = "the server closed the connection"
        try:
            while True:
                event = self._connection.next_event()
                if isinstance(event, NeedData):
                    self._connection.receive_data(await self._link.receive())
                else:
                    await self._handle(event)
        except anyio.EndOfStream:
            try:
                self._connection.receive_eof()
            except RemoteProtocolError as error:
                reason = str(error)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            reason = "the connection broke"
        self._close(reason)

    async def _handle(self, event: ClientEvent) -> None:
        if isinstance(event, NeedData) or (pending := self._pending.get(event.stream_id)) is None:
            return
        if isinstance(event, ResponseReceived):
            _answer(pending, event.response)
        elif isinstance(event, DataReceived):
            await self._deliver(event, pending.inbox)
        elif isinstance(event, StreamFailed):
            pending.inbox.end(event.error)

    async def _deliver(self, event: DataReceived, inbox: Inbox) -> None:
        if event.data is not None:
            with anyio.move_on_after(self._limits.patience) as scope:
                await inbox.put(event.data)
            if scope.cancelled_caught:
                inbox.end(StatusError(Code.RESOURCE_EXHAUSTED, "stream buffer full: messages were not taken in time"))
                self._connection.forget(event.stream_id)
        if event.last:
            inbox.end()


def _request(
    service: str, method: str, payload: bytes, timeout: float | None, metadata: Mapping[str, str] | None
) -> Request:
    pairs = tuple((key.lower(), value) for key, value in (metadata or {}).items())
    return Request(service, method, payload, _nanoseconds(timeout), pairs)


def _nanoseconds(timeout: float | None) -> int:
    """The time left for a call, by its own limit and by that of the cancel scopes around it, as Request wants it."""
    left = anyio.current_effective_deadline() - anyio.current_time()
    left = left if timeout is None else min(left, timeout)
    return 0 if left == math.inf else int(left * 1e9) or -1  # 0 would mean no limit


def _answer(pending: _Pending, response: Response) -> None:
    """The end of a call: with an error, or with the one response."""
    if response.status.code:
        pending.inbox.end(StatusError(response.status.code, response.status.message))
        return
    if response.payload or pending.one_response:  # else it says that the server has sent all
        pending.inbox.put_nowait(response.payload)
    pending.inbox.end()
