"""A byte stream with a bounded write buffer: the I/O that server and client share.

One task writes (:meth:`Link.run`), so that nobody else's cancellation can cut a frame in two. Who has something to say
waits for room, then pushes without waiting: between a connection object's ``send_*`` and :meth:`Link.push` there is no
``await``, which keeps the bytes in order.

A Unix socket is used directly, which anyio, having no buffers of its own for one, allows: a message is written at once
if it can be, without a switch of tasks, and a read costs one turn of the event loop instead of two.
"""

import socket

import anyio
from anyio.abc import ByteStream, SocketAttribute, UNIXSocketStream

#: Bytes asked for in one read.
_READ_SIZE = 65536
_SEND_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Link:
    def __init__(self, stream: ByteStream, limit: int) -> None:
        """
        :param limit: bytes in the write buffer above which :meth:`room` waits
        """
        self.broken = False
        self._stream = stream
        # Only of the very class: a stream that wraps one (TLS) hands the attribute on, and must not be passed by.
        self._socket = stream.extra(SocketAttribute.raw_socket) if isinstance(stream, UNIXSocketStream) else None
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0  # of the chunks, and of what the writer holds
        self._work = anyio.Event()
        self._change = anyio.Event()

    async def receive(self) -> bytes:
        """
        :raises anyio.EndOfStream: the peer closed the connection
        :raises anyio.BrokenResourceError: it broke
        """
        if self._socket is None:
            return await self._stream.receive(_READ_SIZE)
        while True:
            await anyio.wait_readable(self._socket)
            try:
                data = self._socket.recv(_READ_SIZE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            except OSError as error:
                raise anyio.BrokenResourceError from error
            if not data:
                raise anyio.EndOfStream
            return data

    async def room(self) -> None:
        """Wait until the buffer is below its limit, or the connection is broken (what is pushed is then dropped)."""
        while self._size > self._limit and not self.broken:
            await self._change.wait()

    async def flushed(self) -> None:
        """Wait until all that was pushed is in the kernel's hands, or the connection is broken."""
        while self._size and not self.broken:
            await self._change.wait()

    def push(self, data: bytes) -> None:
        """Send without waiting: at once if the socket takes it, else from :meth:`run`."""
        if self.broken:
            return
        if not self._size:
            data = data[self._write_now(data) :]
        if data:
            self._chunks.append(data)
            self._size += len(data)
            self._work.set()

    def _write_now(self, data: bytes) -> int:
        """Write what can be written without waiting; how many bytes that was."""
        if self._socket is None:
            return 0
        try:
            return self._socket.send(data, _SEND_FLAGS)
        except OSError:
            return 0  # full, or broken: the writer finds out

    async def run(self) -> None:
        """Write what is pushed, until the connection breaks."""
        try:
            while True:
                await self._work.wait()
                self._work = anyio.Event()
                await self._write_all()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.broken = True
            self._changed()

    async def _write_all(self) -> None:
        while self._chunks:
            await self._write()

    async def _write(self) -> None:
        data = b"".join(self._chunks)
        self._chunks.clear()
        if self._socket is None:
            await self._stream.send(data)
            self._written(len(data))
        else:
            await self._write_socket(self._socket, memoryview(data))

    async def _write_socket(self, sock: socket.socket, data: memoryview) -> None:
        while data:
            await anyio.wait_writable(sock)
            try:
                written = sock.send(data, _SEND_FLAGS)
            except BlockingIOError:
                continue
            except OSError as error:
                raise anyio.BrokenResourceError from error
            data = data[written:]
            self._written(written)

    def _written(self, size: int) -> None:
        self._size -= size
        self._changed()

    def _changed(self) -> None:
        self._change.set()
        self._change = anyio.Event()
