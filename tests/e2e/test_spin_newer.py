"""Spin 4: components of WASI 0.3, made with spin-sdk 5, on wasmtime's native host."""

import json
from collections.abc import Iterator

import pytest

from tests.components.build import spin_4
from tests.e2e.spin_local import Running, running
from tests.wasmtimes import native_only

pytestmark = native_only
MANIFEST = """
spin_manifest_version = 2
application = { name = "four", version = "4.0.0" }
[variables]
greeting = { default = "hello" }
[[trigger.http]]
route = "/main/..."
component = "main"
[[trigger.http]]
route = "/other/..."
component = "other"
[component.main]
source = "app.wasm"
variables = { greeting = "{{ greeting }}!" }
key_value_stores = ["default", "nowhere"]
sqlite_databases = ["default"]
allowed_outbound_hosts = ["http://127.0.0.1:*", "http://self", "http://other.spin.internal"]
[component.other]
source = "app.wasm"
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("four")
    (directory / "spin.toml").write_text(MANIFEST)
    (directory / "app.wasm").symlink_to(spin_4())
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/root",
        "TMPDIR": str(tmp_path_factory.mktemp("tmp")),
        "SHIMD_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
    }
    with running(tmp_path_factory.mktemp("run"), environment, directory) as app:
        yield app
        assert app.end() == 0


def test_routes(app: Running) -> None:
    about = app.value("/main/about?x=1")
    assert about["uri"] == "/main/about?x=1"
    assert about["headers"]["spin-path-info"] == "/about"
    assert about["headers"]["spin-full-url"] == f"http://{app.address}/main/about?x=1"
    assert app.get("/nowhere").status_code == 404


def test_variables(app: Running) -> None:
    assert app.value("/main/variable/greeting") == "hello!"
    assert app.get("/main/variable/other").json() == "Error_Undefined"
    assert app.get("/main/variable/Not-a-name").json() == "Error_InvalidName"
    assert app.get("/other/variable/greeting").json() == "Error_Undefined"


def test_key_values(app: Running) -> None:
    assert [app.value("/main/counter") for _ in range(3)] == [1, 2, 3]
    assert app.value("/main/keys") == {"keys": ["a", "c", "count"], "exists": [True, False], "b": None}
    assert app.get("/other/counter").json() == "Error_AccessDenied"
    assert app.get("/main/counter/nowhere").json() == "Error_NoSuchStore"


def test_sqlite(app: Running) -> None:
    app.value("/main/people/ada")
    assert app.value("/main/people/grace") == {
        "columns": ["id", "name"],
        "rows": [[1, "ada"], [2, "grace"]],
        "changed": [2, 1],
    }
    assert app.get("/main/bad-sql").json() == "Error_Io"
    assert app.get("/other/people/eve").json() == "Error_AccessDenied"


def test_outbound_http(app: Running) -> None:
    told = {"name": "four", "version": "4.0.0"}
    status, body = app.value(f"/main/fetch/{app.address}/.well-known/spin/info")
    assert (status, json.loads(body)) == (200, told)
    port = app.address.rpartition(":")[2]
    assert app.get(f"/main/fetch/localhost:{port}/").json() == "ErrorCode_HttpRequestDenied"
    assert app.get(f"/other/fetch/{app.address}/").json() == "ErrorCode_HttpRequestDenied"


def test_neighbours(app: Running) -> None:
    status, body = app.value("/main/fetch/other.spin.internal/about")
    assert status == 200
    assert json.loads(body)["headers"]["spin-client-addr"] == "0.0.0.0:0"
    assert app.get("/other/fetch/main.spin.internal/about").json() == "ErrorCode_HttpRequestDenied"
    assert app.value("/main/own/.well-known/spin/health") == [200, "OK"]
    assert app.get("/other/own/.well-known/spin/health").json() == "ErrorCode_HttpRequestDenied"
