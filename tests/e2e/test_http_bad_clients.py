"""Clients that send slowly, too much, or what is no HTTP: theirs ends, and nobody else notices. Of the native host."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from tests.components import rust
from tests.e2e.box import until
from tests.e2e.http_app import App, memory, running
from tests.e2e.http_wire import PREFACE, answer, connect, frames, headers, rest
from tests.wasmtimes import native_only

pytestmark = native_only

REFUSED, CALM = 7, 11
#: What a flood may make a server grow by.
BOUND = 32 * 1024 * 1024


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    log = tmp_path_factory.mktemp("app") / "log"
    program = rust.component("server")
    with running(program, log, SHIMD_HTTP_IDLE="1", SHIMD_HTTP_TIMEOUT="3", SHIMD_HTTP_CONCURRENCY="8") as app:
        yield app


def serves(app: App) -> None:
    assert app.get("/").text == "hello from Rust\n"


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"PRI * HT",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        PREFACE,
        PREFACE + headers(1, flags=("END_STREAM",)),
    ],
    ids=["nothing", "preface", "headers", "no-streams", "headers-2"],
)
def test_requests_that_are_never_finished(app: App, beginning: bytes) -> None:
    clients = [connect(app) for _ in range(40)]
    try:
        for client in clients:
            client.sendall(beginning)
        serves(app)
        for client in clients:
            assert b"HTTP/1.1 200" not in rest(client)
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nx: ", b"y"),
        (PREFACE, PingFrame(0, b"12345678").serialize()),
        (PREFACE, SettingsFrame(0).serialize()),
    ],
    ids=["headers", "pings", "settings"],
)
@pytest.mark.parametrize("before", [0, 2])
def test_what_trickles_is_no_request(app: App, beginning: bytes, piece: bytes, before: int) -> None:
    """Nor if there were some before it."""
    done = threading.Event()

    def trickle(sock: socket.socket) -> None:
        with suppress(OSError):
            while not done.wait(0.05):
                sock.sendall(piece)

    with closing(connect(app)) as sock, sock.makefile("rb") as file:
        for number in range(before):
            if beginning.startswith(PREFACE):
                beginning += headers(2 * number + 1)
            else:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert answer(file).body == b"hello from Rust\n"
        sock.sendall(beginning)
        thread = threading.Thread(target=trickle, args=(sock,))
        thread.start()
        try:
            serves(app)
            rest(sock)
        finally:
            done.set()
            thread.join()
    serves(app)


def test_a_connection_that_is_used_stays(app: App) -> None:
    """One request after the other, and one that takes longer than a connection may be idle."""
    request = b"GET /ticks HTTP/1.1\r\nHost: x\r\n\r\n"
    with closing(connect(app)) as sock:
        for _ in range(4):  # of 0.9 s each
            sock.sendall(request)
            got = b""
            while not got.endswith(b"0\r\n\r\n"):
                more = sock.recv(65536)
                assert more, "the connection is closed"
                got += more


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /pieces?1000000 HTTP/1.1\r\nHost: x\r\n\r\n",
        PREFACE + headers(1, path="/pieces?1000000"),
        PREFACE + headers(1, path="/pieces?1000000") + headers(3, path="/count", flags=("END_HEADERS",)),
    ],
    ids=["1", "2", "2-beside-another"],
)
def test_answers_that_are_never_taken(app: App, request_: bytes) -> None:
    """Their guests wait for room, and others for their guests: until these connections end."""
    clients = [connect(app) for _ in range(8)]
    try:
        for client in clients:
            client.sendall(request_)
        serves(app)
        until(lambda: connections(app) == 0, "their end")
    finally:
        for client in clients:
            client.close()
    serves(app)


def connections(app: App) -> int:
    """Those that the app has open: what it has closed, and the kernel still has to deliver, is of no file."""
    port = f":{int(app.address.rpartition(':')[2]):04X}"
    found = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(it[1].endswith(port) and it[3] != "0A" and it[9] != "0" for it in found)


def test_an_answer_that_is_taken_slowly(app: App) -> None:
    """A piece now and then is enough."""
    number = 2000
    with closing(connect(app)) as sock:
        sock.sendall(f"GET /pieces?{number} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        got = b""
        while more := sock.recv(400_000):
            got += more
            time.sleep(0.1)
    assert got.count(b"x" * 4096) == number and got.endswith(b"0\r\n\r\n")


def test_bodies_that_are_never_finished(app: App) -> None:
    """Their guests wait for them; others have their turns, and the client its answer in the end."""
    clients = [connect(app) for _ in range(7)]
    try:
        for client in clients:
            client.sendall(b"POST /count HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10\r\n\r\n1")
        serves(app)
        for client in clients:
            assert rest(client).startswith(b"HTTP/1.1 504")
    finally:
        for client in clients:
            client.close()
    serves(app)


@pytest.mark.parametrize("program", ["server", "newer"])
@pytest.mark.parametrize("http2", [False, True], ids=["1.1", "2"])
def test_bodies_that_are_never_finished_of_guests_that_have_answered(tmp_path: Path, program: str, http2: bool) -> None:
    """They wait for them as long as a connection may be idle; a client that sends the rest slowly gets all of it."""
    log = tmp_path / "log"
    with (
        running(rust.component(program), log, SHIMD_HTTP_IDLE="1", SHIMD_HTTP_CONCURRENCY="4") as app,
        ExitStack() as stack,
    ):
        for _ in range(4):
            client = stack.enter_context(closing(connect(app)))
            if http2:
                beginning = headers(1, path="/echo", flags=("END_HEADERS",)) + DataFrame(1, b"some of it").serialize()
                client.sendall(PREFACE + beginning)
            else:
                client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nsome of it")
            got = b""
            while b"some of it" not in got:
                got += client.recv(65536)
        serves(app)
        with closing(connect(app)) as slow:
            slow.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nConnection: close\r\n\r\n")
            for _ in range(8):
                time.sleep(0.5)
                slow.sendall(b"y")
            assert rest(slow).count(b"y") == 8


@pytest.mark.parametrize(
    "lengths",
    ["Transfer-Encoding: chunked\r\nContent-Length: {}", "Content-Length: {}\r\nTransfer-Encoding: chunked"],
    ids=["coding-first", "length-first"],
)
def test_a_request_inside_another(app: App, lengths: str) -> None:
    """Of two lengths the coding holds, and what comes after it is no request."""
    inside = b"0\r\n\r\nGET /about HTTP/1.1\r\nHost: y\r\n\r\n"
    head = f"POST /echo HTTP/1.1\r\nHost: x\r\n{lengths.format(len(inside))}\r\n\r\n"
    with closing(connect(app)) as sock:
        sock.sendall(head.encode() + inside)
        answer = rest(sock)
    assert answer.count(b"HTTP/1.1 ") == 1 and b"header host" not in answer, answer


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n1",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n1",
        b"POST /echo HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nx: a\0b\r\n\r\n",
        b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"x: y\r\n" * 101 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
    ids=["coding", "space", "plus", "list", "old", "folded", "nul", "path", "number", "size"],
)
def test_what_is_refused(app: App, request_: bytes) -> None:
    with closing(connect(app)) as sock:
        with suppress(ConnectionError):
            sock.sendall(request_)
        answer = rest(sock)
    assert not answer or answer.startswith(b"HTTP/1.1 4"), answer
    assert answer.count(b"HTTP/1.1 ") <= 1
    serves(app)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /about HTTP/1.1\r\n\r\n",
        b"GET http://x/about HTTP/1.1\r\n\r\n",
        b"GET /about HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        b"GET /about HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /about HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /about HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET /about HTTP/1.1\r\nHost: a:b\r\n\r\n",
        b"GET /about HTTP/1.1\r\nHost: :80\r\n\r\n",
        b"GET /about HTTP/1.1\r\nHost: somebody@x\r\n\r\n",
        b"GET /about HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET http://somebody@x/about HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /about HTTP/1.0\r\nHost: a b\r\n\r\n",
    ],
    ids=["none", "target", "same", "two", "space", "path", "port", "empty", "user", "byte", "target-user", "old"],
)
def test_hosts_that_are_none(app: App, request_: bytes) -> None:
    """RFC 9112, section 3.2."""
    with closing(connect(app)) as sock, sock.makefile("rb") as file:
        sock.sendall(request_)
        assert answer(file).status == 400


@pytest.mark.parametrize(
    ("request_", "host"),
    [
        ("GET /about HTTP/1.1\r\nHost: x:8080", "x:8080"),
        ("GET /about HTTP/1.1\r\nHost: [::1]:80", "[::1]:80"),
        ("GET /about HTTP/1.1\r\nHost: x:", "x:"),
        ("GET http://y:81/about HTTP/1.1\r\nHost: x", "y:81"),
        ("GET /about HTTP/1.1\r\nHost:", "{here}"),
        ("GET /about HTTP/1.0\r\nConnection: close", "{here}"),
    ],
    ids=["port", "address", "no-port", "target", "empty", "old"],
)
def test_whose_request_it_is(app: App, request_: str, host: str) -> None:
    with closing(connect(app)) as sock, sock.makefile("rb") as file:
        sock.sendall(f"{request_}\r\n\r\n".encode())
        lines = (rest(sock) if "1.0" in request_ else answer(file).body).decode().splitlines()
    host = host.format(here=app.address)
    assert [line for line in lines if line.startswith(("uri ", "header host"))] == [
        f"uri http://{host}/about",
        f"header host: {host}",
    ]


def test_whose_request_it_is_by_http_2(app: App) -> None:
    """Its own name for it holds."""
    with closing(connect(app)) as sock:
        sock.sendall(PREFACE + headers(1, ("host", "y"), path="/about"))
        text = b"".join(it.data for it in frames(rest(sock)) if isinstance(it, DataFrame)).decode()
    assert "uri http://x/about\n" in text and "header host: x\n" in text and "host: y" not in text


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"-1\r\n", b"1\n", b"10000000000000000000\r\n", b"1;" + b"x" * 20_000])
def test_chunks_that_are_none(app: App, chunk: bytes) -> None:
    with closing(connect(app)) as sock:
        sock.sendall(b"POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
        assert not rest(sock).startswith(b"HTTP/1.1 2")
    serves(app)


def test_headers_of_http_2_that_are_too_large(app: App) -> None:
    with closing(connect(app)) as sock:
        more = [(f"x{number}", "y" * 1000) for number in range(80)]
        block = headers(1, *more)[9:]
        first = HeadersFrame(1, block[:16000])
        first.flags.add("END_STREAM")
        parts = [ContinuationFrame(1, block[at : at + 16000]) for at in range(16000, len(block), 16000)]
        parts[-1].flags.add("END_HEADERS")
        with suppress(ConnectionError):
            sock.sendall(PREFACE + first.serialize() + b"".join(part.serialize() for part in parts))
        answers = [frame for frame in frames(rest(sock)) if isinstance(frame, HeadersFrame)]
        assert not any(frame.data[:1] == b"\x88" for frame in answers), "it was answered with 200"
    serves(app)


def test_more_streams_than_are_allowed(app: App) -> None:
    numbers = range(1, 2 * 50, 2)
    with closing(connect(app)) as sock:
        sock.sendall(PREFACE + b"".join(headers(number, path="/ticks") for number in numbers))
        serves(app)
        came = frames(rest(sock))
    refused = {it.stream_id for it in came if isinstance(it, RstStreamFrame) and it.error_code == REFUSED}
    whole = {it.stream_id for it in came if isinstance(it, DataFrame) and "END_STREAM" in it.flags}
    assert len(refused) == 42 and len(whole) == 8 and not refused & whole


def test_streams_that_are_reset_at_once(app: App) -> None:
    flood = b"".join(headers(number) + RstStreamFrame(number, 8).serialize() for number in range(1, 20_000, 2))
    before = memory(app)
    with closing(connect(app)) as sock:
        with suppress(ConnectionError):
            sock.sendall(PREFACE + flood)
        serves(app)
        ends = [frame.error_code for frame in frames(rest(sock)) if isinstance(frame, GoAwayFrame)]
    assert not ends or CALM in ends
    assert memory(app) < before + BOUND
    serves(app)


def continuation() -> bytes:
    return ContinuationFrame(1, Encoder().encode([("x", "y" * 16_000)], huffman=False)).serialize()


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (b"", PingFrame(0, b"12345678").serialize() * 10_000),
        (b"", SettingsFrame(0, {3: 100}).serialize() * 10_000),
        (headers(1, flags=("END_STREAM",)), continuation() * 64),
        (headers(1, path="/echo", flags=("END_HEADERS",)), DataFrame(1, b"").serialize() * 10_000),
    ],
    ids=["ping", "settings", "continuation", "empty"],
)
def test_floods(app: App, beginning: bytes, piece: bytes) -> None:
    """Of a client that reads nothing: it gets no more than the server can write, or its connection ends."""
    before = memory(app)
    with closing(connect(app)) as sock:
        sock.sendall(PREFACE + beginning)
        sock.settimeout(1)
        with suppress(OSError):
            for _ in range(400):
                sock.sendall(piece)
        serves(app)
        assert memory(app) < before + BOUND
        sock.settimeout(30)
        rest(sock)
    serves(app)
