"""Components that serve HTTP, built from JavaScript (componentize-js, a fetch event), by ``shimd run`` and ``ctr``."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.components.javascript import component
from tests.e2e.box import Box, until
from tests.e2e.http_app import IMAGE, App, answers, archive, free_port, on_wasmtime, running
from tests.e2e.spin_app import on_the_newest


@pytest.fixture(scope="module")
def program() -> Path:
    return component("fetch")


@pytest.fixture(scope="module")
def app(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with running(program, tmp_path_factory.mktemp("app") / "log") as app:
        yield app


def test_an_answer(app: App) -> None:
    answer = app.get("/")
    assert (answer.status_code, answer.text) == (200, "hello from JavaScript\n")
    assert answer.headers["content-type"] == "text/plain"
    assert app.get("/nowhere").status_code == 404


def test_what_a_guest_knows_of_a_request(app: App) -> None:
    url = f"http://{app.address}/about?a=1"
    about = httpx.put(url, headers=[("x-one", "1"), ("x-two", "2")], trust_env=False).json()
    assert (about["method"], about["url"]) == ("PUT", url)
    assert {("x-one", "1"), ("x-two", "2"), ("host", app.address)} <= {
        (name, value) for name, value in about["headers"]
    }
    assert abs(about["now"] / 1000 - time.time()) < 60


def test_what_is_random_differs_between_requests(app: App) -> None:
    """Though all instances begin with the memory that was there when the component was built."""
    assert len({app.get("/about").json()["random"] for _ in range(5)}) == 5


@pytest.mark.parametrize("size", [0, 1, 65536, 5_000_000])
def test_bodies(app: App, size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    headers = {"content-type": "application/x-some"}
    answer = httpx.post(f"http://{app.address}/echo", content=data, headers=headers, timeout=30, trust_env=False)
    assert answer.content == data
    assert answer.headers["x-type"] == "application/x-some"


def test_a_body_of_json(app: App) -> None:
    answer = httpx.post(f"http://{app.address}/json", json=[1, 2, 39], trust_env=False)
    assert (answer.status_code, answer.json()) == (201, {"sum": 42})


def test_a_response_streams(app: App) -> None:
    """Lines come as they are written, not at the end."""
    times = app.lines("/ticks?number=3&every=300")
    assert [line for line, _at in times] == ["0", "1", "2"]
    assert times[-1][1] - times[0][1] > 0.3


def test_asking_another_server(app: App) -> None:
    """Which is the app itself, in another instance."""
    answer = app.get("/ask", params={"url": f"http://{app.address}/about"})
    assert answer.headers["x-passed-on"] == "yes"
    assert ["x-asked-by", "JavaScript"] in answer.json()["headers"]


def test_sending_a_body_to_another_server(app: App) -> None:
    url = f"http://{app.address}/ask"
    answer = httpx.post(url, params={"url": f"http://{app.address}/json"}, content="[1, 2]", trust_env=False)
    assert (answer.status_code, answer.json()) == (201, {"sum": 3})


def test_another_server_that_is_not_there(app: App) -> None:
    answer = app.get("/ask", params={"url": f"http://127.0.0.1:{free_port()}/"})
    assert answer.status_code == 502
    assert "TypeError" in answer.text


def test_output_is_the_apps(app: App) -> None:
    assert app.get("/say").text == "said"
    until(lambda: "to stdout\n" in app.said() and "to stderr\n" in app.said(), "the app's output")


def test_an_error_is_told_and_hurts_nobody_else(app: App) -> None:
    assert app.get("/throw").status_code == 500
    until(lambda: "on purpose" in app.said(), "the error's message")
    assert app.get("/").status_code == 200


def test_a_guest_that_takes_too_long(program: Path, tmp_path: Path) -> None:
    with running(program, tmp_path / "log", SHIMD_HTTP_TIMEOUT="1") as app:
        assert app.get("/spin").status_code == 504
        assert app.get("/").status_code == 200
        assert app.end() == 0


@on_the_newest
@on_wasmtime
def test_by_ctr(box: Box, program: Path, tmp_path: Path) -> None:
    box.ctr("images", "import", str(archive(tmp_path / "http.tar", program)))
    address = f"127.0.0.1:{free_port()}"
    flags = ("--net-host", "--env", f"WASMTIME_HTTP_PROXY_SOCKET_ADDR={address}")
    output = box.detach("server", flags=flags, image=IMAGE)
    until(lambda: answers(address), "the app to listen")
    asked = httpx.get(f"http://{address}/ask?url=http://{address}/say", trust_env=False)
    assert (asked.status_code, asked.text) == (200, "said")
    until(lambda: "to stdout\n" in output.read_text(), "the app's output")
    box.kill("server", "SIGTERM")
    box.wait_status("server", "STOPPED")
    assert box.delete("server") == 0
