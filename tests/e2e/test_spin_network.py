"""What ``/runtime-config.toml`` says of network and memory, and requests between components of one application."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shimd.engines.wasmtime import NATIVE
from tests import servers
from tests.certificates import Certificates, both
from tests.e2e import spin_app, upstream
from tests.e2e.box import Box
from tests.e2e.spin_app import SPIN, App, check_two_at_a_time, image, is_native, on_spin, on_the_newest

MANIFEST = """
spin_manifest_version = 2
application = { name = "network" }
[variables]
optional = { default = "" }
[[trigger.http]]
route = "/..."
component = "free"
[[trigger.http]]
route = "/bound/..."
component = "bound"
[[trigger.http]]
route = { private = true }
component = "hidden"
[component.free]
source = "app.wasm"
allowed_outbound_hosts = ["*://*:*", "http://hidden.spin.internal", "https://{{ optional }}"]
[component.bound]
source = "app.wasm"
allowed_outbound_hosts = ["http://127.0.0.0/8:*"]
[[trigger.http]]
route = "/tls/..."
component = "without"
[component.without]
source = "app.wasm"
allowed_outbound_hosts = ["https://127.0.0.1:*"]
[component.hidden]
source = "app.wasm"
environment = { COLOUR = "hidden" }
"""
#: Of an application that the native host can serve, too: it connects to no other servers.
HTTP = MANIFEST.replace("*://*:*", 'http://*:*", "https://*:*')
RUNTIME = """
max_instance_memory = 200000000
state_dir = "/data"
[outbound_networking]
block_networks = ["127.0.0.2/32", "10.0.0.0/8", "::1/128"]
max_total_connections = 50
[outbound_redis]
max_connections = 1
[outbound_http]
max_connections = 2
[outbound_mqtt]
max_payload_size_bytes = 3
[[client_tls]]
component_ids = ["free"]
hosts = ["127.0.0.1"]
ca_roots_file = "/tls/ca.pem"
client_cert_file = "/tls/client.pem"
client_private_key_file = "tls/client.key"
"""
#: One of an address that is not blocked; and two ways to write one that is, the first not for a list of hosts.
FREE, BLOCKED = "localhost", ("127.2", "127.0.0.2")
#: Once a name has been looked up; the second where a guest is still writing.
LATE = ("ErrorCode_DestinationIpProhibited", "StreamError_LastOperationFailed")
#: Of names that lead to a blocked address, the second to another, too.
HOSTS = "127.0.0.1 localhost\n127.0.0.2 blocked.test\n::1 both.test\n127.0.0.1 both.test\n"
pytestmark = [on_spin, on_the_newest]


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[Certificates, Certificates]:
    return both(tmp_path)


@pytest.fixture(params=[MANIFEST], ids=["all"])
def app(
    box: Box, tmp_path: Path, certificates: tuple[Certificates, Certificates], request: pytest.FixtureRequest
) -> Iterator[App]:
    server, client = certificates
    files = {
        "/runtime-config.toml": RUNTIME.encode(),
        "/etc/host.conf": b"multi on\n",
        "/tls/ca.pem": server.authority.read_bytes(),
        "/tls/client.pem": client.certificate.read_bytes(),
        "/tls/client.key": client.key.read_bytes(),
    }
    box.ctr("images", "import", str(image(tmp_path / "network.tar", SPIN.image, request.param, files)))
    hosts = tmp_path / "hosts"
    hosts.write_text(HOSTS)
    with spin_app.running(box, SPIN.image, {"/etc/hosts": hosts}) as app:
        yield app


def test_the_network(app: App, certificates: tuple[Certificates, Certificates]) -> None:
    """One container for all of it: an application takes a while to start."""
    check_neighbours(app)
    check_http(app)
    check_certificates(app, *certificates)
    with servers.redis() as address:
        check_redis(app, urlsplit(address).port or 0)
    with servers.mosquitto() as (_host, port):
        check_mqtt(app, port)
    with servers.postgres() as address:
        check_databases(app, "postgres-values", urlsplit(address).netloc)
    with servers.mariadb() as address:
        check_databases(app, "mysql-values", urlsplit(address).netloc)


@pytest.mark.parametrize("app", [HTTP], ids=["http"], indirect=True)
def test_the_network_of_http(app: App, certificates: tuple[Certificates, Certificates], box: Box) -> None:
    assert is_native(box) == (NATIVE and box.runtime == SPIN)
    check_neighbours(app)
    check_http(app)
    check_names(app)
    check_two_at_a_time(app, "/fetch")
    check_certificates(app, *certificates)
    check_memory(app)


def check_neighbours(app: App) -> None:
    """By name, a component that has no route for others; by no host, or self.alt, whatever the path leads to."""
    status, body = app.value("/fetch/hidden.spin.internal/about?x=1")
    assert (status, '"COLOUR": "hidden"' in body, '"spin-path-info": "/about"' in body) == (200, True, True), body
    status, body = app.value("/fetch/self.alt/bound/about")
    assert (status, '"spin-component-route": "/bound"' in body) == (200, True), body
    assert app.get("/fetch/nobody.spin.internal/about").json() == "ErrorCode_DestinationNotFound"
    for elsewhere in ("hidden.spin.internal", "self.alt"):
        assert app.get(f"/bound/fetch/{elsewhere}/about").json() == "ErrorCode_HttpRequestDenied"


def check_http(app: App) -> None:
    with upstream.running() as other:
        port = other.address.partition(":")[2]
        assert app.value(f"/fetch/{FREE}:{port}/")[0] == 200
        assert app.value(f"/fetch/{FREE}:{port}/") == [200, "1.1 2"], "with a limit, connections are not kept"
        assert app.value(f"/bound/fetch/127.0.0.1:{port}/")[0] == 200
    for blocked in ("127.0.0.2", "10.1.2.3", "[::1]", "[::ffff:10.1.2.3]"):
        assert app.get(f"/fetch/{blocked}:{port}/").json() == "ErrorCode_DestinationIpProhibited", blocked
    assert app.get(f"/fetch/{BLOCKED[0]}:{port}/").json() in LATE
    assert app.get(f"/bound/fetch/127.0.0.2:{port}/").json() == "ErrorCode_DestinationIpProhibited"
    assert app.get(f"/bound/fetch/{FREE}:{port}/").json() == "ErrorCode_HttpRequestDenied"


def check_names(app: App) -> None:
    """What counts is where a name leads to."""
    with upstream.running() as other:
        port = other.address.partition(":")[2]
        assert app.get(f"/fetch/blocked.test:{port}/").json() in LATE
        assert app.value(f"/fetch/both.test:{port}/")[0] == 200, "by its other address"
        assert other.connections == 1


def check_certificates(app: App, server: Certificates, client: Certificates) -> None:
    """The server lets nobody in who shows no certificate; one component has one."""
    with upstream.running(server.server(client)) as other:
        assert app.value(f"/fetch_safely/{other.address}/")[0] == 200
        assert app.value(f"/tls/fetch_safely/{other.address}/")[0] == 0, "it does not trust the server"


def check_memory(app: App) -> None:
    """A guest that wants more than its instance may have is told so, and goes on."""
    assert [app.value(f"/grow/{megabytes}") for megabytes in (50, 300, 50)] == [50, "no memory", 50]


def check_redis(app: App, port: int) -> None:
    assert app.value(f"/redis/{FREE}:{port}")["get"] == "value"
    for _ in range(3):
        assert app.value(f"/redis/127.0.0.1:{port}")["get"] == "value", "the one before has been given back"
    for blocked in BLOCKED:
        assert app.get(f"/redis/{blocked}:{port}").json() == "Error_InvalidAddress", blocked


def check_mqtt(app: App, port: int) -> None:
    assert app.get(f"/mqtt-publish/{FREE}:{port}/rooms/21").status_code == 200
    assert app.get(f"/mqtt-publish/{FREE}:{port}/rooms/2100").json() == "Error_Other", "more than three bytes"
    assert app.get(f"/mqtt-publish/{BLOCKED[0]}:{port}/rooms/21").json() == "Error_ConnectionFailed"


def check_databases(app: App, path: str, where: str) -> None:
    who, port = where.rpartition("@")[0], where.rpartition(":")[2]
    assert app.value(f"/{path}/{who}@{FREE}:{port}")["rows"]
    assert app.get(f"/{path}/{who}@{BLOCKED[0]}:{port}").json() == "Error_ConnectionFailed"
