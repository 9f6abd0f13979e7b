"""A ttrpc client that costs next to nothing, so that the shim is measured and not its caller; and a sink for events.

Blocking sockets, one call at a time, frames of 10 bytes of header each (ttrpc's PROTOCOL.md).
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shimd.ttrpc import StatusError
from shimd.ttrpc.envelope import Request, Response

SERVICE = "containerd.task.v2.Task"
_HEADER = struct.Struct(">IIBB")
_REQUEST, _RESPONSE = 1, 2


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


@contextmanager
def sink(path: Path) -> Iterator[None]:
    """Takes every event, as containerd would, without looking at it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        threading.Thread(target=_accept, args=[listener], daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
    path.unlink()


def _accept(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            connection, _address = listener.accept()
            threading.Thread(target=_take, args=[connection], daemon=True).start()


def _take(connection: socket.socket) -> None:
    with suppress(OSError), connection:
        while True:
            stream, _event = _receive(connection)
            connection.sendall(_HEADER.pack(0, stream, _RESPONSE, 0))
