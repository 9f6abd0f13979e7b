"""A Spin application in JavaScript, made with Spin's own tools, on both hosts."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.components import javascript
from tests.e2e import upstream
from tests.e2e.spin_local import Running, on_hosts, running

MANIFEST = """
spin_manifest_version = 2
application = { name = "js" }
[[trigger.http]]
route = "/..."
component = "it"
[component.it]
source = "app.wasm"
allowed_outbound_hosts = ["http://127.0.0.1:*"]
ai_models = ["small"]
"""


@pytest.fixture
def app(tmp_path: Path, environment: dict[str, str], engine: str) -> Iterator[Running]:
    (tmp_path / "spin.toml").write_text(MANIFEST)
    (tmp_path / "app.wasm").symlink_to(javascript.spin())
    with running(tmp_path, environment, "--engine", engine, "spin.toml") as app:
        yield app
        assert app.end() == 0, app.said()


@on_hosts
def test_routes_and_bodies(app: Running) -> None:
    assert app.get("/").text == "hello from Spin in JavaScript\n"
    assert app.value("/hello/ada") == {"hello": "ada"}
    assert app.value("/about") == {"url": f"http://{app.address}/about", "route": "/", "path": "/about"}
    assert httpx.post(f"http://{app.address}/shout", content=b"loud", trust_env=False).text == "LOUD"
    assert app.get("/nowhere").status_code == 404


@on_hosts
def test_outbound_http(app: Running) -> None:
    with upstream.running() as other:
        answer = app.get(f"/fetch/{other.address}/")
        assert (answer.status_code, answer.text) == (200, "1.1 1")
    assert app.get("/fetch/127.0.0.2:1/").status_code == 500


@on_hosts
def test_an_interface_of_spins(app: Running) -> None:
    """Its errors are variants."""
    assert app.value("/infer/small")["error"]["tag"] == "runtime-error"
    assert app.value("/infer/large")["error"]["tag"] == "invalid-input"
