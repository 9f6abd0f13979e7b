"""Components that serve HTTP (``wasi:http/incoming-handler``), built from Python, by ``shimd run`` and ``ctr``."""

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.components.build import component
from tests.e2e import http_app
from tests.e2e.box import Box, until
from tests.e2e.containerd import LAUNCHERS
from tests.e2e.http_app import IMAGE, App, answers, archive, free_port, on_wasmtime, running
from tests.wasmtimes import HOSTS

#: What a guest is told of a change to what is read-only: by our own WASI, and by wasmtime's.
READ_ONLY = ("Read-only file system", "Permission denied")


@pytest.fixture(scope="module", params=HOSTS, autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    http_app.host[0] = request.param
    yield request.param
    http_app.host[0] = "wasmtime"


@pytest.fixture
def by_containerd(engine: str) -> None:
    if engine != "wasmtime":
        pytest.skip("the runtime is wasmtime, which is another engine here")


@pytest.fixture(scope="module")
def program() -> Path:
    return component("proxy", "proxy")


@pytest.fixture(scope="module")
def app(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    directory = tmp_path_factory.mktemp("app")
    (directory / "files").mkdir()
    (directory / "ro").mkdir()
    (directory / "ro/note").write_text("a note")
    (directory / "ro/out").symlink_to("/etc/hostname")
    flags = [f"--dir={directory}/files::/files", f"--dir={directory}/ro::/ro:ro"]
    with running(program, directory / "log", *flags, GREETING="hello") as app:
        yield app


def test_an_answer(app: App) -> None:
    answer = app.get("/")
    assert (answer.status_code, answer.text) == (200, "hello from a component\n")
    assert answer.headers["content-type"] == "text/plain"


def test_what_a_guest_knows_of_a_request(app: App) -> None:
    about = httpx.request(
        "PURGE", f"http://{app.address}/about?a=1", headers=[("x-many", "1"), ("x-many", "2")], trust_env=False
    ).json()
    assert about["method"] == "PURGE"
    assert about["path"] == "/about?a=1"
    assert about["scheme"] == "Scheme_Http"
    assert about["authority"] == app.address
    assert [value for name, value in about["headers"] if name == "x-many"] == ["1", "2"]


def test_the_environment_is_the_apps_and_the_requests(app: App) -> None:
    environments = [app.get("/about").json()["environ"] for _ in range(3)]
    assert all(environment["GREETING"] == "hello" for environment in environments)
    assert len({environment["REQUEST_ID"] for environment in environments}) == 3
    assert not any("HTTP_PROXY" in name or name.startswith("SHIMD") for name in environments[0])


def test_status_and_headers(app: App) -> None:
    answer = app.get("/status?code=418")
    assert (answer.status_code, answer.headers["x-header"]) == (418, "one")


@pytest.mark.parametrize("size", [0, 1, 65536, 5_000_000])
def test_bodies(app: App, size: int) -> None:
    data = bytes(index % 251 for index in range(1000)) * (size // 1000 + 1)
    assert app.get(f"/zeros?size={size}").content == bytes(size)
    answer = httpx.post(f"http://{app.address}/echo", content=data[:size], timeout=30, trust_env=False)
    assert answer.content == data[:size]


def test_a_response_streams(app: App) -> None:
    """Lines come as they are written, not at the end."""
    times = app.lines("/ticks?number=3&every=300")
    assert [line for line, _at in times] == ["0", "1", "2"]
    assert times[-1][1] - times[0][1] > 0.3


def test_a_request_streams(app: App) -> None:
    """The guest answers the first half before the second has been sent."""
    host, _, port = app.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        received = b""
        while b"first" not in received:
            received += sock.recv(65536)
        sock.sendall(b"6\r\nsecond\r\n0\r\n\r\n")
        while b"second" not in received:
            received += sock.recv(65536)


def test_an_upload_is_not_kept_in_memory(app: App) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(200):
            yield bytes(100_000)

    answer = httpx.post(f"http://{app.address}/count", content=parts(), timeout=60, trust_env=False)
    assert answer.text == str(20_000_000)


def test_requests_at_the_same_time(app: App) -> None:
    """More of them than instances are ready; some wait, and hold up nobody."""
    answers: list[str] = []

    def ask(path: str) -> None:
        answers.append(app.get(path).text)

    threads = [threading.Thread(target=ask, args=(path,)) for path in ["/sleep?ms=500"] * 8 + ["/"] * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["hello from a component\n"] * 8 + ["slept"] * 8


def test_a_trap_is_told_and_hurts_nobody_else(app: App) -> None:
    assert app.get("/trap").status_code == 500
    assert "on purpose" in app.said()
    assert app.get("/").status_code == 200


def test_a_trap_in_the_middle_breaks_the_connection(app: App) -> None:
    """A client must not take half a response for the whole."""
    with pytest.raises(httpx.RemoteProtocolError):
        app.get("/late-trap")
    assert app.get("/").status_code == 200


def test_a_client_that_goes_away_in_the_middle(app: App) -> None:
    """What is written to it then is refused with SIGPIPE. The app does not see it go: so much is not read yet."""
    host, _, port = app.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(b"POST /ticks?number=5&every=200 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        sock.sendall(bytes(100_000))
        received = b""
        while b"\r\n\r\n" not in received:
            received += sock.recv(65536)
    time.sleep(1)
    assert app.get("/").status_code == 200


@pytest.mark.parametrize("query", ["drop=yes", "drop=no&length=20"])
def test_a_body_that_is_not_whole_breaks_the_connection(app: App, query: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        app.get(f"/unfinished?{query}")
    assert app.get("/").status_code == 200


@pytest.mark.parametrize("query", ["drop=no", "drop=no&length=13"])
def test_a_body_that_is_left_open_ends_with_its_guest(app: App, query: str) -> None:
    assert app.get(f"/unfinished?{query}").text == "the beginning"


@pytest.mark.parametrize("path", ["/silent", "/leave"])
def test_no_answer(app: App, path: str) -> None:
    assert app.get(path).status_code == 500
    assert app.get("/").status_code == 200


def test_output_is_the_apps(app: App) -> None:
    assert app.get("/say").text == "said"
    assert "to stdout\n" in app.said() and "to stderr\n" in app.said()


def test_waiting_for_one_of_two(app: App) -> None:
    assert app.get("/wait-for-two").text == "[1]"


def test_files(app: App) -> None:
    assert app.get("/files?path=/files").json() == {
        "text": "written by a component",
        "found": ["renamed"],
        "size": 22,
    }


@pytest.mark.parametrize(
    ("path", "status"), [("/ro/note", 200), ("/ro/missing", 404), ("/ro/out", 404), ("/ro/../files/renamed", 404)]
)
def test_files_stay_in_their_directories(app: App, path: str, status: int) -> None:
    assert app.get(f"/read?path={path}").status_code == status


def test_a_read_only_directory(app: App) -> None:
    assert app.get("/files?path=/ro").status_code == 500
    assert "Errno" in app.said()


class Other:
    """A server for guests to ask: it says how it was asked."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            with connection:
                asked = b""
                while b"\r\n\r\n" not in asked or (b"chunked" in asked.lower() and not asked.endswith(b"0\r\n\r\n")):
                    asked += connection.recv(65536)
                head = b"HTTP/1.1 203 Non-Authoritative\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(asked)
                connection.sendall(head + asked)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def other() -> Iterator[Other]:
    server = Other()
    yield server
    server.close()


def test_asking_another_server(app: App, other: Other) -> None:
    answer = app.get("/fetch", params={"authority": other.address, "path": "/x?y=1"})
    assert answer.status_code == 203
    assert answer.text.startswith("GET /x?y=1 HTTP/1.1\r\n")
    assert "x-asked-by: a component\r\n" in answer.text.lower()


def test_sending_a_body_to_another_server(app: App, other: Other) -> None:
    answer = app.get("/fetch", params={"authority": other.address, "body": "some text"})
    assert answer.text.startswith("POST / HTTP/1.1\r\n")
    assert "some text" in answer.text


def test_another_server_that_is_not_there(app: App) -> None:
    answer = app.get("/fetch", params={"authority": f"127.0.0.1:{free_port()}"})
    assert (answer.status_code, answer.text) == (502, "ErrorCode_ConnectionRefused")


@pytest.mark.parametrize("path", ["/spin", "/sleep?ms=60000"])
def test_a_guest_that_takes_too_long(program: Path, tmp_path: Path, path: str) -> None:
    with running(program, tmp_path / "log", SHIMD_HTTP_TIMEOUT="1") as app:
        assert app.get(path).status_code == 504
        assert "no answer within 1 s" in app.said()
        assert app.get("/").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_requests_under_way_are_finished(program: Path, tmp_path: Path, processes: str, number: int) -> None:
    with running(program, tmp_path / "log", SHIMD_HTTP_PROCESSES=processes) as app:
        assert app.end_with_one_under_way("/ticks?number=4&every=300", number) == (["0", "1", "2", "3"], 0)


def test_grace_has_an_end(program: Path, tmp_path: Path) -> None:
    with running(program, tmp_path / "log", SHIMD_HTTP_GRACE="1") as app:
        thread = threading.Thread(target=_ignore_errors, args=(app, "/sleep?ms=50000"))
        thread.start()
        time.sleep(0.5)
        assert app.end() == 0
        thread.join()


def _ignore_errors(app: App, path: str) -> None:
    try:
        app.get(path)
    except httpx.HTTPError:
        return


def test_more_than_one_process(program: Path, tmp_path: Path) -> None:
    with running(program, tmp_path / "log", SHIMD_HTTP_PROCESSES="3") as app:
        assert {app.get("/").text for _ in range(20)} == {"hello from a component\n"}
        assert app.end() == 0


def test_an_access_log(program: Path, tmp_path: Path) -> None:
    with running(program, tmp_path / "log", SHIMD_HTTP_ACCESS_LOG="1") as app:
        app.get("/status?code=204")
        until(lambda: '"GET /status?code=204 HTTP/1.1" 204' in app.said(), "a line in the access log")


def run(program: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    env = [f"--env={name}={value}" for name, value in environment.items()]
    command = [str(LAUNCHERS / "shimd"), "run", "--engine", http_app.host[0], *env, str(program)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_port_that_is_taken(program: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        done = run(program, WASMTIME_HTTP_PROXY_SOCKET_ADDR=address)
    assert (done.returncode, done.stderr) == (137, f"shimd: cannot listen on {address}: Address already in use\n")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("WASMTIME_HTTP_PROXY_SOCKET_ADDR", "nowhere", "is not HOST:PORT"),
        ("WASMTIME_HTTP_BACKLOG", "many", "is not a number of at least 1"),
        ("SHIMD_HTTP_TIMEOUT", "-1", "is not a number of at least 0"),
    ],
)
def test_settings_that_are_none(program: Path, name: str, value: str, words: str) -> None:
    done = run(program, **{name: value})
    assert done.returncode == 126
    assert words in done.stderr and value in done.stderr


UNKNOWN = """(component
  (import "acme:rockets/launch@1.0.0" (instance (export "go" (func))))
  (core module $m (func (export "handle") (param i32 i32)))
  (core instance $i (instantiate $m))
  (import "wasi:http/types@0.2.0" (instance $types
    (export "incoming-request" (type (sub resource))) (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $out))
  (func $handle (param "request" (own $request)) (param "out" (own $out)) (canon lift (core func $i "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"""


def test_an_unknown_interface(tmp_path: Path) -> None:
    (tmp_path / "app.wat").write_text(UNKNOWN)
    done = run(tmp_path / "app.wat")
    assert done.returncode == 126
    assert done.stderr == "shimd: the component imports acme:rockets/launch@1.0.0, which is not provided\n"


def test_without_a_network_it_asks_nobody(program: Path, tmp_path: Path, other: Other) -> None:
    """``shimd run`` without --network: it may be asked, since that is what it is for."""
    with running(program, tmp_path / "log", network=False) as app:
        answer = app.get("/fetch", params={"authority": other.address})
        assert (answer.status_code, answer.text) == (502, "ErrorCode_HttpRequestDenied")


@on_wasmtime
@pytest.mark.usefixtures("by_containerd")
def test_by_ctr(box: Box, tmp_path: Path) -> None:
    box.ctr("images", "import", str(archive(tmp_path / "http.tar")))
    address = f"127.0.0.1:{free_port()}"
    flags = ("--net-host", "--env", f"WASMTIME_HTTP_PROXY_SOCKET_ADDR={address}")
    hardened = ("--read-only", "--mount", "type=tmpfs,src=tmpfs,dst=/tmp,options=size=64k")
    output = box.detach("server", flags=(*flags, *hardened), image=IMAGE)
    until(lambda: answers(address), "the app to listen")
    assert httpx.get(f"http://{address}/say", trust_env=False).text == "said"
    assert httpx.get(f"http://{address}/read?path=/var/data/note", trust_env=False).text == "a note\n"
    assert httpx.get(f"http://{address}/files?path=/tmp", trust_env=False).json()["found"] == ["renamed"]
    assert httpx.get(f"http://{address}/files?path=/data", trust_env=False).status_code == 500
    until(lambda: any(words in output.read_text() for words in READ_ONLY), "the reason")
    unknown = httpx.get(f"http://{address}/fetch?authority=no.invalid", trust_env=False)
    assert (unknown.status_code, unknown.text) == (502, "ErrorCode_DnsError")
    until(lambda: "to stdout\n" in output.read_text(), "the app's output")
    assert box.ctr("tasks", "metrics", "server", check=False).code == 0
    box.kill("server", "SIGTERM")
    box.wait_status("server", "STOPPED")
    assert box.delete("server") == 0


@on_wasmtime
@pytest.mark.usefixtures("by_containerd")
def test_an_app_that_is_killed(box: Box, tmp_path: Path) -> None:
    box.ctr("images", "import", str(archive(tmp_path / "http.tar")))
    address = f"127.0.0.1:{free_port()}"
    flags = ("--net-host", "--env", f"WASMTIME_HTTP_PROXY_SOCKET_ADDR={address}")
    box.detach("server", flags=flags, image=IMAGE)
    until(lambda: answers(address), "the app to listen")
    box.kill("server", "SIGKILL")
    box.wait_status("server", "STOPPED")
    assert box.delete("server") == 137
