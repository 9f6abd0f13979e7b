"""A ttrpc client that costs next to nothing, so that the shim is measured and not its caller; and a sink for events.

Blocking sockets, one call at a time, frames of 10 bytes of header each (ttrpc's PROTOCOL.md).
"""

import multiprocessing
import selectors
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from shimd.ttrpc import StatusError
from shimd.ttrpc.envelope import Request, Response

SERVICE = "containerd.task.v2.Task"
_HEADER = struct.Struct(">IIBB")
_REQUEST, _RESPONSE = 1, 2
_processes = multiprocessing.get_context("fork")


class Caller:
    """One connection to a shim."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(address.removeprefix("unix://"))
        self._stream = 1

    def call(self, method: str, request: bytes) -> bytes:
        """:raises StatusError: what the shim says"""
        return self.send(encoded(method, request))

    def send(self, data: bytes) -> bytes:
        """The same, of what was :func:`encoded` before."""
        self._socket.sendall(_HEADER.pack(len(data), self._stream, _REQUEST, 0) + data)
        self._stream += 2
        _stream, answer = _receive(self._socket)
        response = Response.decode(answer)
        if response.status.code:
            raise StatusError(response.status.code, response.status.message)
        return response.payload

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()


def _receive(sock: socket.socket) -> tuple[int, bytes]:
    """A frame's stream and data."""
    length, stream, _kind, _flags = _HEADER.unpack(_exactly(sock, _HEADER.size))
    return stream, _exactly(sock, length)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = sock.recv(size) if size else b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionError("the shim has hung up")
        data += more
    return data


def encoded(method: str, request: bytes) -> bytes:
    return Request(SERVICE, method, request).encode()


class Sink:
    """Takes every event, as containerd would, without looking at it: a process of its own, so that no event waits for
    the callers here."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._taken = _processes.Value("Q", 0)
        self._more = _processes.Condition()

    @property
    def taken(self) -> int:
        """How many events have come."""
        with self._more:
            return int(self._taken.value)

    def wait(self, count: int, seconds: float) -> None:
        """Return when so many have come.

        :raises TimeoutError: they have not, within so long
        """
        with self._more:
            if not self._more.wait_for(lambda: self._taken.value >= count, seconds):
                raise TimeoutError(f"{self._taken.value} events have come, of {count}")

    def run(self) -> None:
        """Until the process is ended."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    sock = cast(socket.socket, key.fileobj)
                    if sock is self._listener:
                        selector.register(sock.accept()[0], selectors.EVENT_READ)
                    elif not self._take(sock):
                        selector.unregister(sock)
                        sock.close()

    def _take(self, sock: socket.socket) -> bool:
        """Returns whether there was an event."""
        try:
            stream, _event = _receive(sock)
            sock.sendall(_HEADER.pack(0, stream, _RESPONSE, 0))
        except OSError:
            return False
        with self._more:
            self._taken.value += 1
            self._more.notify_all()
        return True


@contextmanager
def sink(path: Path) -> Iterator[Sink]:
    """A :class:`Sink` at a path."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        found = Sink(listener)
        process = _processes.Process(target=found.run, daemon=True)
        process.start()
    try:
        yield found
    finally:
        process.kill()
        process.join()
        path.unlink()
