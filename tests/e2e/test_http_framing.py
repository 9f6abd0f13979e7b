"""Where answers begin, end and break off on the wire, by WASI 0.2 and 0.3. Of the native host."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import httpx
import pytest
from hyperframe.frame import RstStreamFrame

from tests.components import rust
from tests.e2e.http_app import App, guest, memory, running, settles
from tests.e2e.http_wire import PREFACE, answer, body, connect, headers, rest, until_ended
from tests.wasmtimes import native_only

pytestmark = native_only

#: Of ``native/wasmtime/src/host.rs``: what goes between a guest and a connection at a time.
CHUNK = 128 * 1024
HELLO = {"0.2": b"hello from a component\n", "0.3": b"hello from WASI 0.3\n"}


@pytest.fixture(scope="module", params=list(HELLO))
def version(request: pytest.FixtureRequest) -> str:
    """Of WASI."""
    return str(request.param)


@pytest.fixture(scope="module")
def app(version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with running(guest(version), tmp_path_factory.mktemp("app") / "log", SHIMD_HTTP_REUSE="1") as app:
        yield app


@pytest.fixture(scope="module")
def rusty(version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    program = rust.component("server" if version == "0.2" else "newer")
    with running(program, tmp_path_factory.mktemp("app") / "log") as app:
        yield app


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("text", ["", "some text"])
@pytest.mark.parametrize("status", [200, 204, 304, 404])
def test_a_short_answer_and_the_next(app: App, version: str, method: str, text: str, status: int) -> None:
    """What a guest writes where an answer has no body goes nowhere: the next answer begins where this one ends."""
    path = f"/status?code={status}&text={text.replace(' ', '+')}"
    with closing(connect(app)) as sock, sock.makefile("rb") as file:
        known: list[bool] = []
        for _ in range(5):
            sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            got = answer(file, method)
            assert (got.status, got.headers["x-header"]) == (status, "one")
            assert got.body == (text.encode() if status in (200, 404) and method != "HEAD" else b"")
            known.append("content-length" in got.headers)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer(file).body == HELLO[version]
    # A guest that is interrupted in the middle has its answer sent in parts.
    assert version == "0.3" or method == "HEAD" or status in (204, 304) or any(known), "no length is said"


def test_answers_to_requests_that_come_together(app: App, version: str) -> None:
    requests = [("HEAD", "/"), ("GET", "/status?code=204&text=x"), ("GET", "/"), ("HEAD", "/status?code=200&text=x")]
    with closing(connect(app)) as sock, sock.makefile("rb") as file:
        sock.sendall(b"".join(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for method, path in requests))
        got = [answer(file, method) for method, _path in requests]
    assert [it.status for it in got] == [200, 204, 200, 200]
    assert [it.body for it in got] == [b"", b"", HELLO[version], b""]


@pytest.mark.parametrize("http2", [False, True], ids=["1.1", "2"])
@pytest.mark.parametrize("size", [size * CHUNK + more for size in (1, 2) for more in (-1, 0, 1)])
def test_bodies_about_a_chunk(app: App, rusty: App, size: int, http2: bool) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    with httpx.Client(http1=not http2, http2=http2, timeout=30, trust_env=False) as client:
        for where in (app, rusty):
            for sent in (data, iter([data[: CHUNK - 1], data[CHUNK - 1 :]])):  # with a length, and without
                got = client.post(f"http://{where.address}/echo", content=sent)
                assert got.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
                assert got.content == data


def test_pieces_that_nobody_takes_yet(rusty: App) -> None:
    """The guest waits: a client that takes its time costs no memory. And what it takes in the end is whole, whichever
    of the two has waited for the other."""
    number, clients = 5000, 8
    assert len(rusty.get(f"/pieces?{number}").content) == number * 4096
    before = memory(rusty, "Pss_Anon")
    with ExitStack() as stack:
        socks = [stack.enter_context(closing(connect(rusty))) for _ in range(clients)]
        for sock in socks:
            sock.sendall(f"GET /pieces?{number} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        settles(lambda: memory(rusty, "Pss_Anon"))
        assert memory(rusty, "Pss_Anon") - before < clients * (1 << 20), "of some 20 MB each"
        for taken in (1 << 12, 1 << 20):
            got = b""
            while more := socks[-1].recv(taken):
                got += more
                if len(got) < 1 << 20:
                    time.sleep(0.001)
            assert got.count(b"x" * 4096) == number and got.endswith(b"\r\n0\r\n\r\n")
            socks.pop()
    assert len(rusty.get(f"/pieces?{number}").content) == number * 4096


@pytest.mark.parametrize("path", ["/late-trap", "/late-leave?code=0"])
def test_what_comes_before_a_trap(app: App, path: str) -> None:
    """It arrives, and is not whole."""
    for _ in range(20):
        with closing(connect(app)) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            got = rest(sock)
        assert got.startswith(b"HTTP/1.1 200 OK\r\n") and b"the beginning" in got, got
        assert not got.endswith(b"0\r\n\r\n"), got


def test_a_body_that_breaks_is_its_streams_alone(app: App, version: str) -> None:
    """Of HTTP/2: others of the connection go on, and there may be more."""
    with closing(connect(app)) as sock:
        sock.sendall(PREFACE + headers(1, path="/ticks?number=5&every=300") + headers(3, path="/late-trap"))
        came = until_ended(sock, 1, 3)
        assert [it.stream_id for it in came if isinstance(it, RstStreamFrame)] == [3]
        assert not any("END_STREAM" in it.flags for it in came if it.stream_id == 3)
        assert b"the beginning".startswith(body(came, 3))  # a reset may overtake it
        assert body(came, 1) == b"0\n1\n2\n3\n4\n"
        sock.sendall(headers(5))
        assert body(until_ended(sock, 5), 5) == HELLO[version]
