"""Guests that do what none should: the harm is their own request's, and nobody else notices.

Of both hosts, by WASI 0.2 and 0.3, where each request has an instance of its own. Guests that ask others without end
are in ``test_http_outgoing.py``, those that share an instance in ``test_http_newer.py``.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shimd.engines.wasmtime import NATIVE
from tests.components import rust
from tests.e2e.box import until
from tests.e2e.http_app import App, guest, running, serving, with_one_under_way
from tests.wasmtimes import HOSTS, native_only

#: An engine, and the version of WASI.
KINDS = [(host, "0.2") for host in HOSTS] + ([("wasmtime", "0.3")] if NATIVE else [])
each_kind = pytest.mark.parametrize("kind", KINDS, ids=["-".join(kind) for kind in KINDS], scope="module")
#: What a guest writes before it ends in the middle of an answer.
BEGINNING = b"the beginning"


@pytest.fixture(scope="module")
def app(kind: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    engine, version = kind
    log = tmp_path_factory.mktemp("app") / "log"
    with running(guest(version), log, engine=engine, SHIMD_HTTP_TIMEOUT="5", SHIMD_HTTP_REUSE="1") as app:
        yield app


def beside_another(app: App, hostile: Callable[[], object]) -> None:
    """Another's answer is under way meanwhile, and whole; and others are answered afterwards."""
    lines = with_one_under_way(app.address, "/ticks?number=5&every=200", hostile)
    assert lines == [str(number) for number in range(5)]
    assert app.get("/").status_code == 200


def never_answered(app: App, path: str, number: int) -> None:
    """So many ask for it at a time, and each gets a 504; others are answered meanwhile."""
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(app.get(path).status_code)) for _ in range(number)]

    def begin() -> None:
        for thread in threads:
            thread.start()
        assert [app.get("/").status_code for _ in range(5)] == [200] * 5

    beside_another(app, begin)
    for thread in threads:
        thread.join()
    assert codes == [504] * number


def received(app: App, path: str) -> bytes:
    """An answer, to the end of the connection."""
    host, _, port = app.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        got = b""
        while more := sock.recv(65536):
            got += more
        return got


@each_kind
@pytest.mark.parametrize("path", ["/trap", "/leave"])
def test_one_that_ends_before_it_has_answered(app: App, path: str) -> None:
    codes: list[int] = []
    beside_another(app, lambda: codes.append(app.get(path).status_code))
    assert codes == [500]


@each_kind
@pytest.mark.parametrize("path", ["/late-trap", "/late-leave?code=3", "/late-leave?code=0"])
def test_one_that_ends_in_the_middle(app: App, path: str) -> None:
    """Even if it says that all is well: nothing is whole that its guest has not ended."""
    got: list[bytes] = []
    beside_another(app, lambda: got.append(received(app, path)))
    assert not got[0] or (got[0].startswith(b"HTTP/1.1 200 OK\r\n") and BEGINNING in got[0]), got[0]
    assert not got[0].endswith(b"0\r\n\r\n"), got[0]


@each_kind
def test_one_that_answers_twice(app: App, kind: tuple[str, str]) -> None:
    if kind[1] == "0.3":
        pytest.skip("an answer is what its function returns")
    got: list[bytes] = []
    beside_another(app, lambda: got.append(received(app, "/twice")))
    assert got[0].count(b"HTTP/1.1 ") <= 1 and not got[0].endswith(b"0\r\n\r\n"), got[0]


@each_kind
@pytest.mark.parametrize("path", ["/spin", "/sleep?ms=60000"])
def test_one_that_never_answers(app: App, path: str) -> None:
    never_answered(app, path, 4)
    until(lambda: app.said().count("no answer within 5 s") >= 4, "each to be told")


@native_only
@pytest.mark.parametrize("version", ["0.2", "0.3"])
def test_one_that_computes_after_its_answer(tmp_path: Path, version: str) -> None:
    """It is ended some time after; one that waits is not."""
    few = tmp_path / "log", "--env=SHIMD_HTTP_CONCURRENCY=3"
    with running(guest(version), *few, SHIMD_HTTP_TIMEOUT="2", SHIMD_HTTP_REUSE="1") as app:
        assert app.get("/late-sleep?ms=5000").text == "answered"
        assert [app.get("/late-spin").text for _ in range(4)] == ["answered"] * 4
        until(lambda: app.said().count("the guest computed for 2 s after its answer") == 4, "their end")
        until(lambda: "slept afterwards" in app.said(), "the end of the other")
        assert app.get("/").status_code == 200
        assert app.end() == 0


@native_only
@pytest.mark.parametrize("version", ["0.2", "0.3"])
def test_what_is_done_after_an_answer_is_finished(tmp_path: Path, version: str) -> None:
    """The app ends after it."""
    with running(guest(version), tmp_path / "log") as app:
        assert app.get("/late-sleep?ms=2000").text == "answered"
        assert app.end() == 0
        assert "slept afterwards" in app.said()


@native_only
@pytest.mark.parametrize("version", ["0.2", "0.3"])
@pytest.mark.parametrize("path", ["/spin", "/sleep?ms=60000"])
def test_one_that_never_answers_on_one_processor(tmp_path: Path, version: str, path: str) -> None:
    """Guests, clients and the end share one thread then."""
    processor = min(os.sched_getaffinity(0))
    by = ["taskset", "-c", str(processor)]
    with running(guest(version), tmp_path / "log", by=by, SHIMD_HTTP_TIMEOUT="5", SHIMD_HTTP_REUSE="1") as app:
        assert os.sched_getaffinity(serving(app)) == {processor}
        never_answered(app, path, 3)
        assert app.end_with_one_under_way("/ticks?number=3&every=200") == (["0", "1", "2"], 0)


@each_kind
@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("connection", "close", "Forbidden"),
        ("transfer-encoding", "chunked", "Forbidden"),
        ("keep-alive", "1", "Forbidden"),
        ("host", "elsewhere", "Forbidden"),
        ("upgrade", "websocket", "Forbidden"),
        ("x y", "1", "InvalidSyntax"),
        ("x", "1\r\nx-more: 2", "InvalidSyntax"),
        ("x", "1\n", "InvalidSyntax"),
        ("x", "\0", "InvalidSyntax"),
        ("x:", "1", "InvalidSyntax"),
    ],
)
def test_headers_that_may_not_be_sent(app: App, name: str, value: str, word: str) -> None:
    answer = app.get("/header", params={"name": name, "value": value})
    assert (answer.status_code, answer.text) == (200, f"HeaderError_{word}")


@each_kind
@pytest.mark.parametrize("length", [3, 100])
def test_a_length_that_is_not_the_bodys(app: App, length: int) -> None:
    """What is too little is not whole, and what is too much reaches nobody."""
    got: list[bytes] = []
    beside_another(app, lambda: got.append(received(app, f"/header?name=content-length&value={length}")))
    head, _, body = got[0].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ") or body in (b"", b"taken"[:length]), got[0]
    assert got[0].count(b"HTTP/1.1 ") <= 1


@each_kind
def test_a_length_that_is_none(app: App) -> None:
    """It is refused, or breaks the connection."""
    got: list[bytes] = []
    beside_another(app, lambda: got.append(received(app, "/header?name=content-length&value=many")))
    assert not got[0] or b"HeaderError_InvalidSyntax" in got[0], got[0]


@each_kind
def test_one_that_does_not_read_what_it_is_sent(app: App) -> None:
    """10 MB: its client gets the answer, whether or not it has sent them all."""
    host, _, port = app.address.rpartition(":")

    def ask() -> None:
        with socket.create_connection((host, int(port)), timeout=60) as sock:
            sender = threading.Thread(target=send, args=(sock,))
            sender.start()
            got = b""
            while b"hello" not in got:
                more = sock.recv(65536)
                assert more, got
                got += more
            assert got.startswith(b"HTTP/1.1 200 OK\r\n")
            with suppress(OSError):  # it may be closed already
                sock.shutdown(socket.SHUT_RDWR)
            sender.join()

    def send(sock: socket.socket) -> None:
        try:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n" + bytes(10_000_000))
        except OSError:
            return

    beside_another(app, ask)


@each_kind
def test_one_that_takes_all_memory_that_it_can_have(kind: tuple[str, str], tmp_path: Path) -> None:
    engine, version = kind
    program = rust.component("newer" if version == "0.3" else "server")
    with running(program, tmp_path / "log", engine=engine, SHIMD_HTTP_REUSE="1") as app:
        codes: list[int] = []
        threads = [threading.Thread(target=lambda: codes.append(app.get("/grow").status_code)) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert {app.get("/").text for _ in range(5)} == {"hello from Rust\n"}
        for thread in threads:
            thread.join()
        assert codes == [500] * 4
        assert app.said().count("there is no more memory") == 4
        assert app.get("/").text == "hello from Rust\n"


#: Serves by an interface, were its instance ever made.
BEGINS = """(component
  (core module $m (func $spin (loop (br 0))) (start $spin) (func (export "handle")))
  (core instance $i (instantiate $m))
  (func $handle (canon lift (core func $i "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "%s" (instance $handler)))"""


@each_kind
def test_one_that_never_begins(kind: tuple[str, str], tmp_path: Path) -> None:
    engine, version = kind
    program = tmp_path / "begins.wat"
    program.write_text(BEGINS % {"0.2": "wasi:http/incoming-handler@0.2.0", "0.3": "wasi:http/handler@0.3.0"}[version])
    few = tmp_path / "log", "--env=SHIMD_HTTP_CONCURRENCY=2"
    with running(program, *few, engine=engine, SHIMD_HTTP_TIMEOUT="1") as app:
        assert [app.get("/").status_code for _ in range(5)] == [504] * 5
        assert app.end() == 0
