"""Servers of redis, PostgreSQL, MariaDB and MQTT by TLS: whom the process trusts that connects for components."""

import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from shimd.engines.wasmtime import NATIVE
from tests import servers
from tests.certificates import Certificates, made
from tests.e2e.box import Box
from tests.e2e.spin_app import SPIN, App, image, is_native, on_spin, on_the_newest
from tests.e2e.spin_app import running as in_a_container
from tests.e2e.spin_local import Running, running
from tests.e2e.test_spin_servers import write
from tests.wasmtimes import native_only

MANIFEST = """
spin_manifest_version = 2
application = { name = "secure" }
[[trigger.http]]
route = "/..."
component = "it"
[component.it]
source = "app.wasm"
allowed_outbound_hosts = ["redis://*:*", "rediss://*:*", "mysql://*:*", "postgres://*:*", "mqtt://*:*", "mqtts://*:*"]
"""
#: Of outbound HTTP, and of nothing else.
CLIENT_TLS = """
[[client_tls]]
component_ids = ["it"]
hosts = ["127.0.0.1", "localhost"]
ca_roots_file = "authority.pem"
"""
#: What is said of a connection, by how the servers' addresses begin.
REACHED = {
    "rediss": "value",
    "postgres": [[["Boolean", "True"]]],
    "mysql": [[["Str", "'Ssl_version'"], ["Str", "'TLSv1.3'"]]],
    "mqtts": None,
}
ERRORS = {
    "rediss": "Error_Other",
    "postgres": "Error_ConnectionFailed",
    "mysql": "Error_ConnectionFailed",
    "mqtts": "Error_ConnectionFailed",
}
UNKNOWN = "certificate verify failed: "


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return made(tmp_path_factory.mktemp("tls"), "IP:127.0.0.1")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of an authority that the servers have nothing of."""
    return made(tmp_path_factory.mktemp("other"), "IP:127.0.0.1")


@pytest.fixture(scope="module")
def addresses(tls: Certificates) -> Iterator[dict[str, str]]:
    """By how they begin; all of 127.0.0.1, as in the servers' certificate."""
    with ExitStack() as stack:
        host, port = stack.enter_context(servers.mosquitto(tls))
        postgres = stack.enter_context(servers.postgres(tls)).replace("postgresql:", "postgres:")
        yield {
            "rediss": stack.enter_context(servers.redis(tls)),
            "postgres": f"{postgres}?sslmode=require",
            "mysql": f"{stack.enter_context(servers.mariadb(tls))}?ssl-mode=required",
            "mqtts": f"mqtts://{host}:{port}",
        }


def reached(app: Running | App, address: str, path: str = "reach") -> object:
    return app.value(f"/{path}/{quote(address, safe='')}")


@native_only
def test_an_authority_that_the_container_names(
    tmp_path: Path, environment: dict[str, str], tls: Certificates, addresses: dict[str, str]
) -> None:
    """Without names there is nobody but what is in a certificate: an address is not a name's."""
    write(tmp_path, MANIFEST)
    with running(tmp_path, environment, "--env", f"SSL_CERT_FILE={tls.authority}", tmp_path) as app:
        assert {kind: reached(app, address) for kind, address in addresses.items()} == REACHED
        for mode in ("verify-ca", "verify-full"):
            address = addresses["postgres"].replace("require", mode)
            assert reached(app, address) == REACHED["postgres"]
        for kind, address in addresses.items():
            error, text = refused(reached(app, address.replace("127.0.0.1", "localhost")))
            assert error == ERRORS[kind]
            assert "Hostname mismatch, certificate is not valid for 'localhost'" in text
        assert app.end() == 0, app.said()


@native_only
def test_an_authority_that_nobody_knows(
    tmp_path: Path, environment: dict[str, str], tls: Certificates, other: Certificates, addresses: dict[str, str]
) -> None:
    """But for this machine's variable, which is not the application's, and for what its HTTP is to trust."""
    write(tmp_path, MANIFEST, CLIENT_TLS)
    (tmp_path / "authority.pem").write_bytes(tls.authority.read_bytes())
    of_the_node = environment | {"SSL_CERT_FILE": str(tls.authority)}
    for name, trusted in (("none", tmp_path / "missing.pem"), ("other", other.authority)):
        with running(tmp_path, of_the_node, "--env", f"SSL_CERT_FILE={trusted}", tmp_path) as app:
            for kind, address in addresses.items():
                error, text = refused(reached(app, address))
                assert (error, UNKNOWN in text) == (ERRORS[kind], True), (name, kind, text)
            assert app.end() == 0, app.said()


@native_only
def test_an_authority_that_a_guest_names(
    tmp_path: Path, environment: dict[str, str], tls: Certificates, other: Certificates, addresses: dict[str, str]
) -> None:
    """For one connection to PostgreSQL."""
    write(tmp_path, MANIFEST)
    with running(tmp_path, environment, "--env", f"SSL_CERT_FILE={other.authority}", tmp_path) as app:
        address = addresses["postgres"].replace("?sslmode=require", "")
        for mode in ("", "?sslmode=require", "?sslmode=verify-full"):
            assert trusting(app, address + mode, tls) == REACHED["postgres"]
        error, text = refused(trusting(app, addresses["postgres"].replace("127.0.0.1", "localhost"), tls))
        assert (error, "Hostname mismatch" in text) == (ERRORS["postgres"], True)
        error, text = refused(reached(app, addresses["postgres"]))
        assert (error, UNKNOWN in text) == (ERRORS["postgres"], True), "the next one is not trusted for it"
        assert app.end() == 0, app.said()


def refused(answer: object) -> tuple[str, str]:
    """The error's name, and what it says."""
    assert isinstance(answer, list) and len(answer) == 2, answer
    error, text = answer
    return error, text


def trusting(app: Running, address: str, tls: Certificates) -> object:
    url = f"http://{app.address}/trust/{quote(address, safe='')}"
    answer = httpx.post(url, content=tls.authority.read_bytes(), timeout=30, trust_env=False)
    assert answer.status_code == 200, app.said()
    return answer.json()


@native_only
def test_modes(tmp_path: Path, environment: dict[str, str], addresses: dict[str, str]) -> None:
    """Those that check nobody, and servers that have no TLS where it is wanted."""
    write(tmp_path, MANIFEST)
    with (
        running(tmp_path, environment, tmp_path) as app,
        servers.postgres() as postgres,
        servers.mariadb() as mariadb,
    ):
        secure = addresses["postgres"].partition("?")[0]
        assert reached(app, secure) == REACHED["postgres"], "prefer"
        assert reached(app, f"{secure}?sslmode=disable") == [[["Boolean", "False"]]]
        plain = postgres.replace("postgresql:", "postgres:")
        assert reached(app, plain) == [[["Boolean", "False"]]]
        error, text = refused(reached(app, f"{plain}?sslmode=require"))
        assert (error, "rejected SSL upgrade" in text) == (ERRORS["postgres"], True), text
        secure = addresses["mysql"].partition("?")[0]
        unsafe = [[["Str", "'Ssl_version'"], ["Str", "''"]]]
        assert reached(app, secure) == REACHED["mysql"]
        assert reached(app, f"{secure}?ssl-mode=disabled") == unsafe
        assert reached(app, mariadb) == unsafe
        error, text = refused(reached(app, f"{mariadb}?ssl-mode=required"))
        assert (error, "SSL is required" in text) == (ERRORS["mysql"], True), text
        assert app.end() == 0, app.said()


@on_spin
@on_the_newest
@pytest.mark.parametrize("file", ["/tls/authority.pem", "/tls/other.pem", ""])
def test_in_a_container(
    box: Box, tmp_path: Path, tls: Certificates, other: Certificates, addresses: dict[str, str], file: str
) -> None:
    """Components of WASI 0.2, on both hosts; the authority is a file of the image. That OpenSSL would look there for
    another is no matter."""
    authority = tls.authority.read_bytes()
    of_openssl = ssl.get_default_verify_paths().openssl_cafile
    files = {"/tls/authority.pem": authority, of_openssl: authority, "/tls/other.pem": other.authority.read_bytes()}
    box.ctr("images", "import", str(image(tmp_path / "secure.tar", SPIN.image, MANIFEST, files)))
    with in_a_container(box, **({"SSL_CERT_FILE": file} if file else {})) as app:
        assert is_native(box) == (NATIVE and box.runtime == SPIN)
        if file == "/tls/authority.pem":
            assert {kind: reached(app, address) for kind, address in addresses.items()} == REACHED
            return
        for kind, address in addresses.items():
            error, text = refused(reached(app, address, "said/reach"))
            assert (error, UNKNOWN in text) == (ERRORS[kind], True), (kind, text)
