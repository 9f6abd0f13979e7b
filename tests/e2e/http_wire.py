"""HTTP as it goes over the wire, for tests that send or read what no client would."""

import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame, RstStreamFrame, SettingsFrame

from tests.e2e.http_app import App

#: Of HTTP/2.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()


def connect(app: App) -> socket.socket:
    host, _, port = app.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def rest(sock: socket.socket) -> bytes:
    """What comes until the server closes it."""
    got = b""
    with suppress(ConnectionError):
        while more := sock.recv(65536):
            got += more
    return got


@dataclass
class Answer:
    """Of HTTP/1.1."""

    status: int
    headers: dict[str, str]
    body: bytes


def answer(file: BinaryIO, method: str = "GET") -> Answer:
    """Read one, by the letter of RFC 9112, and no more than that: what comes next begins where it ends."""
    version, status, _reason = _line(file).split(" ", 2)
    assert version in ("HTTP/1.0", "HTTP/1.1")
    headers: dict[str, str] = {}
    while line := _line(file):
        name, _, value = line.partition(":")
        assert re.fullmatch(r"[!-9;-~]+", name) and name.lower() not in headers, line
        headers[name.lower()] = value.strip()
    return Answer(int(status), headers, _body(file, method, int(status), headers))


def _body(file: BinaryIO, method: str, status: int, headers: dict[str, str]) -> bytes:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    assert coding in (None, "chunked") and not (coding and length), headers
    assert status != 204 or not (coding or length), headers
    if method == "HEAD" or status in (204, 304):
        return b""
    if not coding:
        assert length is not None, headers
        return _exactly(file, int(length))
    body = b""
    while size := int(_line(file), 16):
        body += _exactly(file, size)
        assert not _line(file)
    assert not _line(file), "there are trailers"
    return body


def _line(file: BinaryIO) -> str:
    line = file.readline()
    assert line.endswith(b"\r\n"), line
    return line[:-2].decode()


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    assert len(data) == size, "it breaks off"
    return data


def headers(stream: int, *more: tuple[str, str], path: str = "/", flags: tuple[str, ...] = ()) -> bytes:
    """A request of HTTP/2: all of it, unless there are other flags."""
    about = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", path), *more]
    frame = HeadersFrame(stream, Encoder().encode(about, huffman=False))
    for flag in flags or ("END_HEADERS", "END_STREAM"):
        frame.flags.add(flag)
    return frame.serialize()


def frames(data: bytes) -> list[Frame]:
    """The whole ones of what came."""
    found = []
    while len(data) >= 9:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        if len(data) < 9 + length:
            break
        frame.parse_body(memoryview(data[9 : 9 + length]))
        found.append(frame)
        data = data[9 + length :]
    return found


def until_ended(sock: socket.socket, *streams: int) -> list[Frame]:
    """What comes until these have ended, or broken."""
    got = b""
    while True:
        more = sock.recv(65536)
        assert more, "the connection is closed"
        got += more
        came = frames(got)
        ends = {it.stream_id for it in came if isinstance(it, RstStreamFrame) or "END_STREAM" in it.flags}
        if ends.issuperset(streams):
            return came


def body(came: list[Frame], stream: int) -> bytes:
    return b"".join(it.data for it in came if isinstance(it, DataFrame) and it.stream_id == stream)
