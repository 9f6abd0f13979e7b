"""Bodies: bytes between a guest's thread and the event loop, both ways, a bounded number of them under way."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio

from shimd.component.objects import close
from shimd.component.results import Case, Err, Ok
from shimd.wasi.http.fields import Fields
from shimd.wasi.io import WRITABLE, InputStream, OutputStream, Pollable, always_ready, closed, failed


class Pipe:
    """A queue from a guest's thread to the event loop: bytes, then the trailers or a failure.

    Putting something in does not wait for the loop (a switch of threads each way: some 60 us), unless the pipe is full.
    Uses asyncio itself, since anyio has no such thing as ``call_soon_threadsafe``, and our HTTP server is asyncio's.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._chunks: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._filled, self._emptied = anyio.Event(), anyio.Event()
        self._queued = 0
        self.ended = False
        self.broken: str | None = None
        """The reason why nobody reads it any more; ``None`` as long as somebody does."""
        self.aborted = False
        """True if the guest went away before the end of the body."""
        self.trailers: Fields | None = None

    # The guest's side

    def room(self) -> int:
        return max(0, WRITABLE - self._queued)

    def put(self, data: bytes) -> None:
        with self._lock:
            self._chunks.append(data)
            self._queued += len(data)
        self._wake()

    def end(self, trailers: Fields | None = None, *, aborted: bool = False) -> None:
        self.trailers, self.aborted, self.ended = trailers, aborted, True
        self._wake()

    def _wake(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._filled.set)

    # The event loop's side

    async def wait_for_room(self) -> None:
        while not self.room() and self.broken is None:
            self._emptied = anyio.Event()
            await self._emptied.wait()

    def abandon(self, reason: str) -> None:
        """Have writes fail from now on: nobody reads on."""
        self.broken = reason
        self._emptied.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what is put in, as it comes.

        :raises Aborted: the guest ended without an end of its body
        """
        self._loop = asyncio.get_running_loop()
        while True:
            self._filled = anyio.Event()
            ended = self.ended
            if data := self._drain():
                yield data
                self._emptied.set()
            elif ended:
                break
            else:
                if not self.ended and not self._queued:
                    await self._filled.wait()
        if self.aborted:
            raise Aborted

    def _drain(self) -> bytes:
        with self._lock:
            data = b"".join(self._chunks)
            self._chunks.clear()
            self._queued = 0
        return data


class Aborted(Exception):
    """A body that ended before its end."""


class PipeStream(OutputStream):
    """A guest's way into a pipe."""

    def __init__(self, body: "OutgoingBody") -> None:
        self._body = body

    def check_write(self) -> int:
        pipe = self._body.pipe
        if pipe.broken is not None:
            failed(pipe.broken)
        return pipe.room()

    async def wait(self) -> None:
        await self._body.pipe.wait_for_room()

    def write(self, data: bytes) -> None:
        self.check_write()
        if data:
            self._body.sent(len(data))
            self._body.pipe.put(data)


class OutgoingBody:
    """``outgoing-body``: of a response or of a request."""

    def __init__(self, length: int | None = None) -> None:
        self.pipe = Pipe()
        self._length = length
        self._sent = 0
        self._streamed = False

    def write(self) -> OutputStream:
        if self._streamed:
            raise Err(None)
        self._streamed = True
        return PipeStream(self)

    def sent(self, count: int) -> None:
        self._sent += count
        if self._length is not None and self._sent > self._length:
            failed(f"the body is longer than its Content-Length, {self._length}")

    @staticmethod
    def finish(body: "OutgoingBody", trailers: Fields | None) -> None:
        """:raises Err: less was written than Content-Length said"""
        if body._length is not None and body._sent != body._length:
            body.pipe.end(aborted=True)
            raise Err(Case("HTTP-response-body-size", body._sent))
        body.pipe.end(trailers)

    def close(self) -> None:
        """Drop the body. Without :meth:`finish` before, the message is not whole."""
        if not self.pipe.ended:
            self.pipe.end(aborted=True)


class BodyStream(InputStream):
    """Bytes that an async function gives, one chunk a call; ``None`` ends them."""

    def __init__(self, receive: Callable[[], Awaitable[bytes | None]], stop: Callable[[], None] | None = None) -> None:
        """:param stop: called on the guest's thread, when it reads no further"""
        self._receive = receive
        self._stop = stop
        self._buffer = b""
        self._ended = False
        self._error: str | None = None

    def ready(self) -> bool:
        return bool(self._buffer) or self._ended or self._error is not None

    async def wait(self) -> None:
        while not self.ready():
            try:
                data = await self._receive()
            except Exception as error:  # whatever the server or client library raises for a connection that broke
                self._error = str(error) or type(error).__name__
                return
            if data is None:
                self._ended = True
            else:
                self._buffer += data

    def read_available(self, length: int) -> bytes:
        if not self._buffer:
            if self._error is not None:
                failed(self._error)
            closed()
        data, self._buffer = self._buffer[:length], self._buffer[length:]
        return data

    def close(self) -> None:
        if self._stop is not None:
            self._stop()


class FutureTrailers:
    """``future-trailers``: neither our server nor our client tells of any, so there are none at the end."""

    def __init__(self) -> None:
        self._taken = False

    def subscribe(self) -> Pollable:
        return always_ready()

    def get(self) -> Any:
        if self._taken:
            return Err(None)
        self._taken = True
        return Ok(Ok(None))


class IncomingBody:
    """``incoming-body``: of a request or of a response."""

    def __init__(self, stream: InputStream) -> None:
        self._stream = stream
        self._taken = False

    def close(self) -> None:
        if not self._taken:
            close(self._stream)

    def stream(self) -> InputStream:
        if self._taken:
            raise Err(None)
        self._taken = True
        return self._stream

    @staticmethod
    def finish(body: "IncomingBody") -> FutureTrailers:
        body.close()
        return FutureTrailers()
