"""Which of Spin's two hosts runs an application, where wasmtime's native one is installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis as redis_client

from tests import servers
from tests.certificates import both
from tests.e2e import upstream
from tests.e2e.box import Box, until
from tests.e2e.spin_app import SPIN, App, image, is_native, is_without_python, on_one_spin, on_the_newest, running
from tests.wasmtimes import native_only

pytestmark = [native_only, on_one_spin, on_the_newest]
MANIFEST = """
spin_manifest_version = 2
application = { name = "hosts" }
[variables]
word = { default = "default" }
[[trigger.http]]
route = "/..."
component = "it"
[component.it]
source = "app.wasm"
key_value_stores = ["default"]
sqlite_databases = ["default"]
ai_models = ["small"]
variables = { word = "{{ word }}" }
"""
STATIC = '[[trigger.http]]\nroute = "/about"\nstatic_response = { status_code = 404, body = "gone" }\n'
REDIS = '[[trigger.redis]]\naddress = "%s"\nchannel = "news"\ncomponent = "it"\n'
CRON = '[[trigger.cron]]\ncron_expression = "* * * * * *"\ncomponent = "it"\n'
MODELS = '[llm_compute]\ntype = "remote_http"\nurl = "http://127.0.0.1:1"\nauth_token = "t"\n'
VAULT = '[[variables_provider]]\ntype = "vault"\nurl = "http://127.0.0.1:1"\ntoken = "t"\nmount = "secret"\n'
STORE = '[key_value_store.default]\ntype = "redis"\nurl = "%s"\n'
TLS = """
[[client_tls]]
component_ids = ["it"]
hosts = ["127.0.0.1"]
ca_roots_file = "/tls/ca.pem"
client_cert_file = "/tls/client.pem"
client_private_key_file = "/tls/client.key"
"""
LIBSQL = '[sqlite_database.default]\ntype = "libsql"\nurl = "http://127.0.0.1:1/"\ntoken = "t"\n'


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes the place of the standard images."""
    return image(tmp_path_factory.mktemp("spin") / "spin.tar", SPIN.image, MANIFEST)


@contextmanager
def served(box: Box, directory: Path, manifest: str, runtime: str = "") -> Iterator[App]:
    files = {"/spin.toml": directory / "spin.toml", "/runtime-config.toml": directory / "runtime-config.toml"}
    for path, text in zip(files.values(), (manifest, runtime), strict=True):
        path.write_text(text)
    with running(box, SPIN.image, files) as app:
        yield app


@pytest.mark.parametrize("more", ["", STATIC], ids=["http", "static"])
def test_the_native_host(box: Box, tmp_path: Path, more: str) -> None:
    with served(box, tmp_path, MANIFEST + more) as app:
        assert is_native(box)
        assert is_without_python(box.pid("app"))
        assert app.value("/counter") == 1
        assert app.get("/about").status_code == (404 if more else 200)


def test_a_redis_trigger(box: Box, tmp_path: Path) -> None:
    with servers.redis() as address, served(box, tmp_path, MANIFEST + REDIS % address) as app:
        assert not is_native(box)
        with redis_client.Redis.from_url(address) as client:
            until(lambda: client.publish("news", b"first"), "a listener")
        until(lambda: app.value("/noted/redis") == ["first"], "the message")


def test_a_store_in_redis(box: Box, tmp_path: Path) -> None:
    with servers.redis() as address, served(box, tmp_path, MANIFEST, STORE % address) as app:
        assert not is_native(box)
        assert [app.value("/counter") for _ in range(2)] == [1, 2]


def test_a_cron_trigger(box: Box, tmp_path: Path) -> None:
    with served(box, tmp_path, MANIFEST + CRON) as app:
        assert not is_native(box)
        until(lambda: app.value("/noted/cron"), "a moment")


@pytest.mark.parametrize(
    ("configured", "path", "said"),
    [
        (MODELS, "/said/infer/small", "Error_RuntimeError"),
        (VAULT, "/said/variable/word", "Error_Provider"),
        (LIBSQL, "/said/sql/default/SELECT 1", "Error_Io"),
    ],
    ids=["models", "vault", "libsql"],
)
def test_a_server_behind_it(box: Box, tmp_path: Path, configured: str, path: str, said: str) -> None:
    """Which is asked, and not there."""
    with served(box, tmp_path, MANIFEST, configured) as app:
        assert not is_native(box)
        kind, words = app.value(path)
        assert kind == said and "127.0.0.1:1" in words


@pytest.mark.parametrize(("curve", "native"), [("P-384", True), ("P-521", False)])
def test_a_clients_key(box: Box, tmp_path: Path, curve: str, native: bool) -> None:
    """Of a kind that only OpenSSL has, it is shown by the portable host."""
    server, client = both(tmp_path, curve)
    runtime = tmp_path / "runtime-config.toml"
    runtime.write_text(TLS)
    (tmp_path / "spin.toml").write_text(f'{MANIFEST}allowed_outbound_hosts = ["https://127.0.0.1:*"]\n')
    files = {"/tls/ca.pem": server.authority, "/tls/client.pem": client.certificate, "/tls/client.key": client.key}
    files |= {"/spin.toml": tmp_path / "spin.toml", "/runtime-config.toml": runtime}
    with upstream.running(server.server(client)) as other, running(box, SPIN.image, files) as app:
        assert is_native(box) == native
        assert app.value(f"/fetch_safely/{other.address}/")[0] == 200


def test_a_component_that_may_connect_to_servers(box: Box, tmp_path: Path) -> None:
    """It imports them, as all of its SDK do: what counts is what the manifest allows."""
    for hosts, connects in (("http://127.0.0.1:*", False), ("redis://127.0.0.1:*", True), ("*://127.0.0.1:*", True)):
        (tmp_path / str(connects)).mkdir(exist_ok=True)
        allowed = f'{MANIFEST}allowed_outbound_hosts = ["{hosts}"]\n'
        with served(box, tmp_path / str(connects), allowed) as app:
            assert is_native(box), hosts
            assert is_without_python(box.pid("app")) != connects, hosts
            said = app.get("/redis/127.0.0.1:1").json()
            assert said == ("Error_Other" if connects else "Error_InvalidAddress"), hosts
        box.remove("app")
