"""The HTTP server that guests ask: one for all of them, of HTTP/1.1 and a connection a request."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Protocol

#: Status and body of what a GET of a path gives.
_PAGES = {
    "/": (200, "root"),
    "/plain": (200, "plain"),
    "/query?a=1": (200, "query"),
    "/queries?a=1&b=2": (200, "queries"),
    "/one%2Fname?a=b%20c": (200, "escapes"),
    "/200": (200, ""),
    "/201": (201, "made"),
    "/418": (418, ""),
    "/500": (500, "down"),
}
#: The chunks of a body, and its trailers.
_IN_CHUNKS: Mapping[str, tuple[list[str], Mapping[str, str]]] = {
    "/chunks": (["one, ", "two, ", "three"], {}),
    "/trailers": (["one, ", "two"], {"x-sum": "1020", "x-count": "2"}),
}


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        with suppress(ConnectionError):  # of one that breaks off
            self._answer_all()

    def _answer_all(self) -> None:
        sent, trailers = _body(self.rfile, self.headers)
        name = self.path.partition("?")[0]
        if self.command == "POST" and name == "/body":
            self._whole(200, sent)
        elif name == "/headers":
            self._whole(200, b"", self._seen(trailers))
        elif name == "/method":
            self._whole(200, self.command.encode())
        elif self.command == "GET" and name in _IN_CHUNKS:
            self._in_chunks(*_IN_CHUNKS[name])
        else:
            status, text = _PAGES.get(self.path, (404, "")) if self.command == "GET" else (404, "")
            self._whole(status, text.encode())

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _answer

    def _seen(self, trailers: Mapping[str, str]) -> list[tuple[str, str]]:
        """What was asked, as headers."""
        asked = [("asked-method", self.command), ("asked-path", self.path)]
        headers = [(f"head-{name.lower()}", value) for name, value in self.headers.items()]
        return asked + headers + [(f"tail-{name.lower()}", value) for name, value in trailers.items()]

    def _whole(self, status: int, data: bytes, headers: list[tuple[str, str]] | None = None) -> None:
        self._begin(status, [*(headers or []), ("Content-Length", str(len(data)))])
        if self.command != "HEAD":
            self.wfile.write(data)

    def _in_chunks(self, chunks: list[str], trailers: Mapping[str, str]) -> None:
        named = [("Trailer", ", ".join(trailers))] if trailers else []
        self._begin(200, [("Transfer-Encoding", "chunked"), *named])
        for chunk in chunks:
            self.wfile.write(f"{len(chunk):x}\r\n{chunk}\r\n".encode())
        last = "".join(f"{name}: {value}\r\n" for name, value in trailers.items())
        self.wfile.write(f"0\r\n{last}\r\n".encode())

    def _begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in [*headers, ("Connection", "close")]:
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


def _body(stream: _Stream, headers: "Message[str, str]") -> tuple[bytes, Mapping[str, str]]:
    """A request's body and trailers, as much of them as comes."""
    if headers.get("Transfer-Encoding", "") != "chunked":
        return stream.read(int(headers.get("Content-Length", 0))), {}
    body = b""
    while size := int(stream.readline() or b"0", 16):
        body += stream.read(size)
        stream.readline()
    lines = iter(lambda: stream.readline().decode().strip(), "")
    return body, {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@contextmanager
def serving() -> Iterator[str]:
    """The address of a server on the loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
