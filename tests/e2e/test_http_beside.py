"""What servers are given beside WASI's worlds: configuration, logging, buckets, TLS. Of wasmtime's native host.

Commands have them by ``test_wasmtime_extras.py`` and ``test_wasi_tls.py``.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components.build import beside
from tests.e2e.box import until
from tests.e2e.http_app import App, running
from tests.wasmtimes import native_only

pytestmark = native_only


@pytest.fixture(scope="module", params=["older", "newer"])
def program(request: pytest.FixtureRequest) -> Path:
    return beside(request.param)


@pytest.fixture(scope="module")
def app(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with running(program, tmp_path_factory.mktemp("app") / "log", GREETING="hello", SHIMD_HTTP_TIMEOUT="30") as app:
        yield app


def test_the_environment_is_the_configuration(app: App) -> None:
    value, everything = app.get("/config?key=GREETING").json()
    assert value == everything["GREETING"] == "hello"
    assert app.get("/config?key=NOTHING").json()[0] is None


@pytest.mark.parametrize("name", ["SHIMD_HTTP_TIMEOUT", "WASMTIME_HTTP_PROXY_SOCKET_ADDR"])
def test_the_hosts_settings_are_not(app: App, name: str) -> None:
    value, everything = app.get(f"/config?key={name}").json()
    assert value is None and name not in everything


def test_logging(app: App) -> None:
    assert app.get("/log?message=one%20line").text == "logged"
    until(lambda: "WARN a server: one line\n" in app.said(), "the line")


@pytest.mark.parametrize("reuse", ["1", "128"])
def test_a_bucket_is_its_instances(program: Path, tmp_path: Path, reuse: str) -> None:
    """A new one is empty. One that is left open is there for those who have the same instance: of WASI 0.3."""
    with running(program, tmp_path / "log", SHIMD_HTTP_REUSE=reuse) as app:
        found = [app.get("/bucket").json() for _ in range(3)]
    kept = "left open" if reuse != "1" and program == beside("newer") else None
    assert found == [[None, None], [None, kept], [None, kept]]


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "not"])
def test_tls(program: Path, tmp_path: Path, private: tuple[str, Path], trusted: bool) -> None:
    address, certificate = private
    file = str(certificate) if trusted else ""
    with running(program, tmp_path / "log", SSL_CERT_FILE=file) as app:
        answer = app.get("/tls", params={"port": address.rpartition(":")[2]})
    assert answer.status_code == 200
    if trusted:
        assert answer.text.startswith("HTTP/1.1 200 OK\r\n") and answer.text.endswith("\r\n\r\n1.1 1")
    else:
        assert "invalid peer certificate: UnknownIssuer" in answer.text
