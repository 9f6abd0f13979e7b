"""What guests ask others: HTTP/2 where both speak it, connections that are kept, and limits. Of the native host."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components import rust
from tests.components.build import newer
from tests.e2e import upstream
from tests.e2e.box import until
from tests.e2e.http_app import App, running
from tests.e2e.upstream import Upstream
from tests.wasmtimes import native_only

pytestmark = native_only

#: Of ``native/wasmtime/src``: requests of a guest, and connections that nobody uses, to one place and to all.
AT_A_TIME, KEPT, KEPT_OF_ALL = 64, 16, 128


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with running(newer(), tmp_path_factory.mktemp("app") / "log") as app:
        yield app


def ask(app: App, other: Upstream, path: str = "/", scheme: str = "http") -> list[str]:
    answer = app.get("/fetch", params={"authority": other.address, "path": path, "scheme": scheme})
    assert answer.status_code == 200, answer.text
    return answer.text.split()


def at_once(app: App, other: Upstream, number: int, scheme: str = "http") -> list[list[str]]:
    other.party = number
    got: list[list[str]] = []
    threads = [threading.Thread(target=lambda: got.append(ask(app, other, "/together", scheme))) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


@pytest.mark.parametrize(
    ("offered", "version"),
    [(["h2", "http/1.1"], "2"), (["http/1.1"], "1.1"), ([], "1.1")],
    ids=["both", "older", "none"],
)
def test_the_version_is_agreed_on(tmp_path: Path, offered: list[str], version: str) -> None:
    certificate, context = upstream.authority(tmp_path, offered)
    with (
        upstream.running(context) as other,
        running(newer(), tmp_path / "log", SSL_CERT_FILE=str(certificate)) as app,
    ):
        answers = [ask(app, other, scheme="https") for _ in range(3)]
        assert answers == [[version, "1"]] * 3, "by one connection"
        if version == "2":
            assert at_once(app, other, 8, "https") == [["2", "1"]] * 8, "all by the one that there is"


def test_connections_are_kept(app: App) -> None:
    with upstream.running() as other:
        assert [ask(app, other) for _ in range(5)] == [["1.1", "1"]] * 5


def test_how_many_are_kept(app: App) -> None:
    number = KEPT + 8
    with upstream.running() as other:
        assert len(at_once(app, other, number)) == number
        assert other.most == number
        until(lambda: other.open <= KEPT, "the others to be closed")
        assert ask(app, other)[0] == "1.1" and other.connections == number


def test_how_many_are_kept_to_many_places(tmp_path: Path) -> None:
    """Those that came first: the others' places are connected to once more."""
    number = KEPT_OF_ALL + 16
    log = tmp_path / "log"
    with (
        upstream.running(host="0.0.0.0") as other,
        running(rust.component("server"), log, SHIMD_HTTP_CONCURRENCY=str(number)) as app,
    ):
        port, codes = other.address.rpartition(":")[2], []
        other.party = number

        def ask_one(place: int) -> None:
            codes.append(app.get(f"/ask?127.0.0.{place}:{port}/together").status_code)

        for _ in range(2):
            threads = [threading.Thread(target=ask_one, args=(place,)) for place in range(1, number + 1)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert codes == [200] * 2 * number
        assert other.connections >= number + 16


@pytest.mark.parametrize("version", ["0.2", "0.3"])
def test_a_guest_that_asks_without_end(tmp_path: Path, version: str) -> None:
    """It has so many requests under way, and is ended when it has taken too long; others ask meanwhile, and after."""
    program = rust.component("server") if version == "0.2" else newer()
    greedy = "/ask-many?{}/hold" if version == "0.2" else "/fetch-many?authority={}&path=/hold"
    modest = "/ask?{}/" if version == "0.2" else "/fetch?authority={}&path=/"
    log = tmp_path / "log"
    with upstream.running() as other, running(program, log, SHIMD_HTTP_TIMEOUT="8", SHIMD_HTTP_REUSE="1") as app:
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(app.get(greedy.format(other.address)).status_code))
        thread.start()
        until(lambda: other.open >= AT_A_TIME, "its requests")
        answer = app.get(modest.format(other.address))
        assert (answer.status_code, answer.text.split()[0]) == (200, "1.1")
        thread.join()
        assert codes == [504] and other.most == AT_A_TIME + 1
        until(lambda: other.open <= 1, "its requests to end")
        assert app.get(modest.format(other.address)).status_code == 200
