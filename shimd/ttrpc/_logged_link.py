"""A link whose bytes outlive the process: they are in the socket or in the log."""

import socket

import anyio
from anyio.abc import ByteStream

from shimd.ttrpc._link import Link
from shimd.ttrpc.log import Log

_READ_SIZE = 65536
#: Seconds until a log that has no room is asked again.
_PAUSE = 0.05


class LoggedLink(Link):
    """The log is its write buffer, too."""

    def __init__(self, stream: ByteStream, limit: int, log: Log) -> None:
        """
        :raises TypeError: the stream is no Unix socket
        """
        super().__init__(stream, limit)
        if self._socket is None:
            raise TypeError("only a Unix socket's connection can be logged")
        self._sock: socket.socket = self._socket
        self._log = log
        self._size = log.unsent
        if self._size:
            self._work.set()

    async def receive(self) -> bytes:
        while True:
            await anyio.wait_readable(self._sock)
            try:
                data = self._log.receive(self._sock, _READ_SIZE)
            except BlockingIOError:
                await anyio.sleep(_PAUSE)
                continue
            except OSError as error:
                raise anyio.BrokenResourceError from error
            if not data:
                raise anyio.EndOfStream
            return data

    def push(self, data: bytes) -> None:
        if self.broken:
            return
        self._log.answering(data)
        self._size += len(data)
        if self._size == len(data):
            self._size -= self._send_now()
        if self._size:
            self._work.set()

    def _send_now(self) -> int:
        try:
            return self._log.send(self._sock)
        except OSError:
            return 0  # the writer finds out

    async def _write_all(self) -> None:
        while self._size:
            await anyio.wait_writable(self._sock)
            try:
                self._written(self._log.send(self._sock))
            except OSError as error:
                raise anyio.BrokenResourceError from error
