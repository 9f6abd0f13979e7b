"""A component that serves HTTP by WASI 0.3, which wasmtime's native host runs."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from hyperframe.frame import SettingsFrame, WindowUpdateFrame

from tests.components import rust
from tests.components.build import both, newer
from tests.e2e.box import until
from tests.e2e.http_app import App, free_port, running, serving, settles, with_one_under_way
from tests.e2e.http_wire import PREFACE, body, connect, headers, until_ended
from tests.wasmtimes import native_only

pytestmark = native_only


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with running(newer(), tmp_path_factory.mktemp("app") / "log", GREETING="hello", SHIMD_HTTP_TIMEOUT="20") as app:
        yield app


def test_an_answer(app: App) -> None:
    answer = app.get("/")
    assert (answer.status_code, answer.text) == (200, "hello from WASI 0.3\n")


def test_what_a_guest_knows(app: App) -> None:
    about = app.get("/about", headers={"x-one": "1"}).json()
    assert about["authority"] == app.address
    assert ["x-one", "1"] in about["headers"] and ["host", app.address] in about["headers"]
    assert about["environ"]["GREETING"] == "hello" and "REQUEST_ID" in about["environ"]


def test_an_instance_is_used_again(app: App) -> None:
    counts = [int(app.get("/count").text) for _ in range(4)]
    assert counts == list(range(counts[0], counts[0] + 4))


def test_one_that_is_not(tmp_path: Path) -> None:
    with running(newer(), tmp_path / "log", SHIMD_HTTP_REUSE="1") as app:
        assert [app.get("/count").text for _ in range(3)] == ["1"] * 3


def test_of_two_handlers_the_newer_is_asked(tmp_path: Path) -> None:
    with running(both(), tmp_path / "log") as app:
        assert app.get("/").text == "0.3"


@pytest.mark.parametrize("size", [0, 1, 65536, 5_000_000])
def test_bodies(app: App, size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    answer = httpx.post(f"http://{app.address}/echo", content=data, timeout=30, trust_env=False)
    assert answer.content == data


def test_a_response_streams(app: App) -> None:
    times = app.lines("/ticks?number=3&every=300")
    assert [line for line, _at in times] == ["0", "1", "2"]
    assert times[-1][1] - times[0][1] > 0.3


@pytest.mark.parametrize("busy", ["computes", "waits"])
def test_what_is_written_before_a_guest_is_busy(tmp_path: Path, busy: str) -> None:
    """It is on its way before the guest does anything else."""
    with (
        running(rust.component("newer"), tmp_path / "log") as app,
        httpx.stream("GET", f"http://{app.address}/times?{busy}", timeout=30, trust_env=False) as answer,
    ):
        times = [(int(line), time.time_ns()) for line in answer.iter_lines()]
    assert len(times) == 4
    for (_written, came), (next_written, _came) in pairwise(times):
        assert came < next_written


def test_small_parts_that_nobody_takes_yet(tmp_path: Path) -> None:
    """A client that lets only three bytes through holds up a guest that writes one at a time."""
    with running(rust.component("newer"), tmp_path / "log") as app, closing(connect(app)) as sock:
        window = SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 3}).serialize()
        sock.sendall(PREFACE + window + headers(1, path="/specks?5000"))
        until(lambda: int(app.get("/written").text) >= 3, "the first")
        settles(lambda: int(app.get("/written").text))
        assert int(app.get("/written").text) < 100
        sock.sendall(WindowUpdateFrame(1, 5000).serialize())
        assert body(until_ended(sock, 1), 1) == b"." * 5000
        assert app.get("/written").text == "5000"


def test_requests_at_the_same_time_in_one_instance(app: App) -> None:
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(app.get("/sleep?ms=500").text)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["slept"] * 8


def test_asking_another_server(app: App) -> None:
    about = json.loads(app.get("/fetch", params={"authority": app.address}).text)
    assert ["x-asked-by", "a component"] in about["headers"]
    assert app.get("/fetch", params={"authority": f"127.0.0.1:{free_port()}"}).status_code == 500


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "NOTHING"])
def test_whose_certificates_are_trusted(tmp_path: Path, private: tuple[str, Path], variable: str) -> None:
    address, certificate = private
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/one.pem").write_bytes(certificate.read_bytes())
    file = str(certificate) if variable == "SSL_CERT_FILE" else ""
    directory = str(tmp_path / "certs") if variable == "SSL_CERT_DIR" else ""
    with running(newer(), tmp_path / "log", SSL_CERT_FILE=file, SSL_CERT_DIR=directory) as app:
        answer = app.get("/fetch", params={"authority": address, "scheme": "https"})
        assert answer.status_code == (500 if variable == "NOTHING" else 200)
        assert (answer.text == "1.1 1") == (variable != "NOTHING")


@contextmanager
def slow() -> Iterator[str]:
    """The address of a server whose answer takes longer than an instance is kept that does nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _address = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n")
                for part in (b"first", b"next ", b"last "):
                    time.sleep(1.5)
                    connection.sendall(part)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(30)


@pytest.mark.parametrize("reuse", ["1", "128"])
def test_a_body_that_is_passed_on_may_take_its_time(tmp_path: Path, reuse: str) -> None:
    """The guest has ended by then."""
    with running(rust.component("newer"), tmp_path / "log", SHIMD_HTTP_REUSE=reuse) as app, slow() as other:
        assert app.get(f"/ask?{other}/").text == "firstnext last "
        assert app.get("/").status_code == 200


def test_a_trap_is_told_and_hurts_nobody_else(app: App) -> None:
    assert app.get("/trap").status_code == 500
    until(lambda: "on purpose" in app.said(), "the reason")
    assert app.get("/").status_code == 200


def test_a_trap_in_the_middle_breaks_the_connection(app: App) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        app.get("/late-trap")
    assert app.get("/").status_code == 200


def test_a_trap_at_any_time_breaks_the_connection(app: App) -> None:
    """The guest's end may be there before its answer is where it goes; who shares its instance, and has got nothing
    yet, gets a 500."""
    whole: list[str] = []

    def ask() -> None:
        with suppress(httpx.RemoteProtocolError):
            answer = app.get("/late-trap")
            if answer.status_code != 500:
                whole.append(answer.text)

    for _ in range(30):
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert whole == []


def test_a_trap_is_of_those_who_share_its_instance(app: App) -> None:
    """Their answers break off; who comes next has another instance."""
    with pytest.raises(httpx.RemoteProtocolError):
        with_one_under_way(app.address, "/ticks?number=100&every=300", lambda: app.get("/trap"))
    assert app.get("/").status_code == 200


@pytest.mark.parametrize("path", ["/spin", "/sleep?ms=60000"])
def test_a_guest_that_takes_too_long(tmp_path: Path, path: str) -> None:
    with running(newer(), tmp_path / "log", SHIMD_HTTP_TIMEOUT="1") as app:
        assert app.get(path).status_code == 504
        assert "no answer within 1 s" in app.said()
        assert app.get("/").status_code == 200


def test_one_that_computes_holds_up_no_others(tmp_path: Path) -> None:
    """It has waited before, and its instance would have taken more requests: they go to another."""
    with running(newer(), tmp_path / "log", SHIMD_HTTP_TIMEOUT="6") as app:
        codes: list[int] = []
        spins = threading.Thread(target=lambda: codes.append(app.get("/wait-and-spin?ms=500").status_code))
        spins.start()
        until(lambda: "it spins" in app.said(), "it to spin")
        others = [app.get("/").text for _ in range(20)]
        assert others == ["hello from WASI 0.3\n"] * 20 and not codes
        spins.join()
        assert codes == [504]


def test_requests_that_come_while_one_begins_to_compute(tmp_path: Path) -> None:
    """Those that its instance has taken end with it; nobody else waits."""
    with running(newer(), tmp_path / "log", SHIMD_HTTP_TIMEOUT="6") as app:
        codes: list[int] = []

        def ask() -> None:
            for _ in range(40):
                try:
                    codes.append(app.get("/count").status_code)
                except httpx.RemoteProtocolError:  # its answer had begun
                    codes.append(500)

        spins = [threading.Thread(target=lambda: app.get("/wait-and-spin?ms=700")) for _ in range(2)]
        asks = [threading.Thread(target=ask) for _ in range(4)]
        for thread in spins + asks:
            thread.start()
        for thread in spins + asks:
            thread.join()
        assert len(codes) == 160 and set(codes) <= {200, 500, 504}
        assert app.get("/").status_code == 200
        assert app.end() == 0


def test_an_answer_beside_a_guest_that_takes_too_long(tmp_path: Path) -> None:
    """Of the same instance: it is whole before the instance ends."""
    with running(newer(), tmp_path / "log", SHIMD_HTTP_TIMEOUT="1") as app:
        codes: list[int] = []
        late = threading.Thread(target=lambda: codes.append(app.get("/sleep?ms=60000").status_code))
        lines = with_one_under_way(app.address, "/ticks?number=8&every=400", late.start)
        late.join()
        assert (lines, codes) == ([str(number) for number in range(8)], [504])


def test_requests_under_way_are_finished(tmp_path: Path) -> None:
    with running(newer(), tmp_path / "log") as app:
        assert app.end_with_one_under_way("/ticks?number=4&every=300") == (["0", "1", "2", "3"], 0)


def test_requests_that_have_been_sent_when_it_is_told_to_end(tmp_path: Path) -> None:
    """On connections that it has not seen yet, and on ones that it has kept: they are answered."""
    request = b"GET /sleep?ms=100 HTTP/1.1\r\nHost: x\r\n\r\n"
    with running(newer(), tmp_path / "log") as app, ExitStack() as stack:
        host, _, port = app.address.rpartition(":")

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection((host, int(port)), timeout=60))

        kept = [connect() for _ in range(8)]
        for sock in kept:
            sock.sendall(request)
            assert b"slept" in heard(sock)
        stopped = serving(app)
        os.kill(stopped, signal.SIGSTOP)
        try:
            new = [connect() for _ in range(24)]
            for sock in kept + new:
                sock.sendall(request)
            os.kill(stopped, signal.SIGTERM)
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert all(b"slept" in heard(sock) for sock in kept + new)
        assert app.process.wait(60) == 0


def heard(sock: socket.socket) -> bytes:
    """An answer of a few words, or what there is of it."""
    got = b""
    while not got.endswith(b"0\r\n\r\n") and (more := sock.recv(65536)):
        got += more
    return got


def test_http2_by_prior_knowledge(app: App) -> None:
    command = [
        "curl",
        "-s",
        "--noproxy",
        "*",
        "--http2-prior-knowledge",
        "-w",
        "%{http_version}",
        f"http://{app.address}/",
    ]
    assert subprocess.run(command, capture_output=True, text=True, timeout=30).stdout == "hello from WASI 0.3\n2"


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello",
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nbad name: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nx: " + "y" * 300_000 + "\r\n\r\n",
        "nonsense\r\n\r\n",
    ],
    ids=["two-lengths", "no-length", "coding", "name", "huge", "nonsense"],
)
def test_what_is_no_request(app: App, head: str) -> None:
    host, _, port = app.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        try:
            sock.sendall(head.encode())
            answer = sock.recv(65536)
        except ConnectionError:
            answer = b""
    assert not answer or answer.startswith(b"HTTP/1.1 4"), answer
    assert app.get("/").status_code == 200
