"""Spin 4: components of WASI 0.3, made with spin-sdk 5, on wasmtime's native host."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.certificates import Certificates, both
from tests.components.build import spin_4
from tests.e2e import upstream
from tests.e2e.spin_app import check_two_at_a_time
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


NETWORK = """
[outbound_networking]
block_networks = ["127.0.0.2/32"]
[outbound_http]
max_connections = 2
[[client_tls]]
component_ids = ["main"]
hosts = ["127.0.0.1"]
ca_roots_file = "ca.pem"
client_cert_file = "client.pem"
client_private_key_file = "client.key"
"""
ANYWHERE = MANIFEST.replace('"http://127.0.0.1:*"', '"http://*:*", "https://*:*"')
ANYWHERE += 'allowed_outbound_hosts = ["https://127.0.0.1:*"]\n'


@contextmanager
def served(directory: Path, environment: dict[str, str], manifest: str = MANIFEST) -> Iterator[Running]:
    write(directory, manifest)
    with running(directory, environment, directory) as app:
        yield app
        assert app.end() == 0


def write(directory: Path, manifest: str) -> None:
    (directory / "spin.toml").write_text(manifest)
    (directory / "app.wasm").symlink_to(spin_4())


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Running]:
    with served(tmp_path_factory.mktemp("four"), environment) as app:
        yield app


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


def test_a_limit_of_memory(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "runtime-config.toml").write_text("max_instance_memory = 1048576\n")
    with served(tmp_path, environment) as app:
        assert app.get("/main/about").status_code == 500
        assert app.get("/.well-known/spin/health").status_code == 200
        assert "shimd: main: " in app.said() and "memory minimum size" in app.said()


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[Certificates, Certificates]:
    return both(tmp_path)


def test_the_network(
    tmp_path: Path, environment: dict[str, str], certificates: tuple[Certificates, Certificates]
) -> None:
    server, client = certificates
    for name, file in (("ca.pem", server.authority), ("client.pem", client.certificate), ("client.key", client.key)):
        (tmp_path / name).write_bytes(file.read_bytes())
    (tmp_path / "runtime-config.toml").write_text(NETWORK)
    with served(tmp_path, environment, ANYWHERE) as app:
        check_blocked(app)
        check_two_at_a_time(app, "/main/fetch")
        check_certificates(app, server, client)


def check_blocked(app: Running) -> None:
    """Also by what is looked up as a name."""
    with upstream.running() as other:
        port = other.address.partition(":")[2]
        assert app.value(f"/main/fetch/localhost:{port}/")[0] == 200
        for blocked in ("127.0.0.2", "127.2", "[::ffff:127.0.0.2]"):
            assert app.get(f"/main/fetch/{blocked}:{port}/").json() == "ErrorCode_DestinationIpProhibited", blocked
        assert other.connections == 1


def check_certificates(app: Running, server: Certificates, client: Certificates) -> None:
    """The server lets nobody in who shows no certificate; one component has one, and trusts it."""
    with upstream.running(server.server(client)) as other:
        assert app.value(f"/main/fetch-safely/{other.address}/")[0] == 200
        assert app.get(f"/other/fetch-safely/{other.address}/").json() == "ErrorCode_TlsCertificateError"
