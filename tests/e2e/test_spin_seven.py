"""Spin 4 in Rust: a core module of spin-sdk 7, as ``spin build`` leaves it, on wasmtime's native host."""

from collections.abc import Iterator

import httpx
import pytest

from tests.components import rust_newest
from tests.e2e import upstream
from tests.e2e.spin_local import Running, running
from tests.wasmtimes import native_only

pytestmark = native_only
MANIFEST = """
spin_manifest_version = 2
application = { name = "seven" }
[variables]
word = { default = "seven" }
[[trigger.http]]
route = "/..."
component = "it"
[component.it]
source = "app.wasm"
variables = { word = "{{ word }}" }
key_value_stores = ["default"]
sqlite_databases = ["default"]
allowed_outbound_hosts = ["http://127.0.0.1:*"]
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("seven")
    (directory / "app.wasm").symlink_to(rust_newest.module())
    (directory / "spin.toml").write_text(MANIFEST)
    with running(directory, environment, "spin.toml") as app:
        yield app
        assert app.end() == 0, app.said()


def test_an_answer(app: Running) -> None:
    assert app.get("/").text == "hello from Spin 4 in Rust\n"
    assert httpx.post(f"http://{app.address}/shout", content=b"loud", trust_env=False).text == "LOUD"


def test_variables(app: Running) -> None:
    assert app.get("/variable/word").text == "seven"
    assert app.get("/variable/other").text.startswith("Error::Undefined(")


def test_stores(app: Running) -> None:
    assert [app.get("/counter").text for _ in range(3)] == ["1", "2", "3"]
    assert [app.get(f"/people/{name}").text for name in ("b", "a")] == ["b", "a b"]


def test_other_servers(app: Running) -> None:
    with upstream.running() as other:
        assert app.get(f"/fetch/{other.address}").text == "1.1 1"
    assert app.get("/fetch/127.0.0.2:1").text == "ErrorCode::HttpRequestDenied"


def test_a_panic(app: Running) -> None:
    """It is told, and the next request has an instance again."""
    assert app.get("/panic").status_code == 500
    assert "on purpose" in app.said()
    assert app.get("/").status_code == 200
