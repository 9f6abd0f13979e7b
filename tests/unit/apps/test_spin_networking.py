"""``[outbound_networking]``, ``[[client_tls]]`` and limits of connections: what is made of them."""

import socket
import ssl
import threading
from collections.abc import Iterator

import anyio
import httpcore
import pytest

from shimd.apps.spin.allowed import AllowedHosts
from shimd.apps.spin.assembly import _rules
from shimd.apps.spin.client_tls import contexts
from shimd.apps.spin.clients import Clients
from shimd.apps.spin.fields import toml
from shimd.apps.spin.limits import ConnectionLimits
from shimd.apps.spin.neighbours import Neighbours
from shimd.apps.spin.networking import Networking, networking
from shimd.apps.spin.place import Place
from shimd.apps.spin.telemetry import Telemetry
from shimd.engine import InvalidSetting
from shimd.wasi.http.outgoing import OutgoingHandler, OutgoingRules, anything
from shimd.wasi.trust import BuiltIn, Trust
from tests.certificates import Certificates, made

TLS = '[[client_tls]]\ncomponent_ids = ["one", "two"]\nhosts = ["Server.test", "other.test"]\n'


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return made(tmp_path_factory.mktemp("server"), "IP:127.0.0.1")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A client's, by another authority."""
    return made(tmp_path_factory.mktemp("client"), "DNS:client.test")


@pytest.fixture
def trust() -> Trust:
    return Trust(BuiltIn(), {"SSL_CERT_FILE": "/nonexistent"})


def configured(text: str, **files: bytes) -> Networking:
    named = {f"/{name.replace('_', '.')}": data for name, data in files.items()}
    return networking(toml("/runtime-config.toml", text.encode()), Place(named.get), ["one", "two"])


def test_nothing_is_configured(trust: Trust) -> None:
    found = configured("")
    assert not found.destinations
    assert (found.pooling, found.payload, contexts(found.tls, "one", trust)) == (True, None, {})
    assert not any(found.most(kind) for kind in ("http", "redis", "postgres", "mysql", "mqtt"))


def test_which_certificates_are_trusted(trust: Trust, certificates: Certificates) -> None:
    """Those of the file alone, unless others are to count, too."""
    file = 'ca_roots_file = "ca.pem"\n'
    pem = certificates.authority.read_bytes()
    built_in = len(BuiltIn().context.get_ca_certs())
    for lines, expected in (
        (file, 1),
        ("ca_use_webpki_roots = true\n", built_in),
        (file + "ca_use_webpki_roots = true\n", built_in + 1),
        ("", 0),  # the container's, and it has none
        (file + "ca_use_platform_roots = true\n", 1),
    ):
        own = contexts(configured(TLS + lines, ca_pem=pem).tls, "one", trust)
        assert own.keys() == {"server.test", "other.test"}
        assert len(own["server.test"]().get_ca_certs()) == expected, lines


def test_the_first_that_fits_counts(trust: Trust, certificates: Certificates) -> None:
    text = TLS.replace('"two"', '"one"') + 'ca_roots_file = "ca.pem"\n' + TLS + "ca_use_webpki_roots = true"
    found = configured(text, ca_pem=certificates.authority.read_bytes())
    assert len(contexts(found.tls, "one", trust)["other.test"]().get_ca_certs()) == 1
    assert len(contexts(found.tls, "two", trust)["other.test"]().get_ca_certs()) > 1


WRONG = [
    ('[outbound_networking]\nblock_networks = ["privat"]', 'outbound_networking.block_networks has "privat", which is'),
    (
        "[outbound_networking]\nmax_total_connections = 0",
        "outbound_networking.max_total_connections is 0, which allows",
    ),
    ("[outbound_redis]\nmax_connections = -1", "outbound_redis.max_connections is no number, or a negative one"),
    ("[outbound_pg]\nmax_connections = true", "outbound_pg.max_connections is no number"),
    ('[[client_tls]]\nhosts = ["a"]', r"client_tls\[0\].component_ids is missing, or empty"),
    ('[[client_tls]]\ncomponent_ids = ["one"]\nhosts = []', r"client_tls\[0\].hosts is missing, or empty"),
    ('[[client_tls]]\ncomponent_ids = ["three"]\nhosts = ["a"]', r"client_tls\[0\].component_ids names 'three', which"),
    ('[[client_tls]]\ncomponent_ids = ["one"]\nhosts = ["a:443"]', r'client_tls\[0\].hosts has "a:443", which is no'),
    (TLS + "ca_use_platform_roots = false", r"client_tls\[0\] trusts nobody"),
    (TLS + "ca_use_webpki_roots = false", r"client_tls\[0\] trusts nobody"),
    (TLS + 'ca_roots_file = "none.pem"', r"client_tls\[0\].ca_roots_file names none.pem, which does not exist"),
    (TLS + 'ca_roots_file = "bad.pem"', r"client_tls\[0\].ca_roots_file names bad.pem, which has no certificates"),
    (
        TLS + 'client_cert_file = "c.pem"',
        r"client_tls\[0\].client_private_key_file is missing, and client_cert_file is",
    ),
    (TLS + 'client_private_key_file = "c.pem"', r"client_tls\[0\].client_cert_file is missing"),
    (
        TLS + 'client_cert_file = "bad.pem"\nclient_private_key_file = "bad.pem"',
        r"client_tls\[0\].client_cert_file \(bad.pem\) and client_private_key_file \(bad.pem\) are no certificate and",
    ),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(InvalidSetting, match=f"^/runtime-config.toml: {words}"):
        configured(text, bad_pem=b"nonsense")


@pytest.fixture
def server(certificates: Certificates, own: Certificates) -> Iterator[int]:
    """One that asks for a certificate of the other authority; its answer is whose it is."""
    context = certificates.server(own)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) as talk:
                    talk.recv(65536)
                    subject = dict(pair for names in talk.getpeercert()["subject"] for pair in names)  # type: ignore
                    body = subject["commonName"].encode()
                    talk.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
                    )
            except OSError:
                connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield int(listener.getsockname()[1])
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(30)


def test_a_certificate_that_is_shown(trust: Trust, certificates: Certificates, own: Certificates, server: int) -> None:
    text = TLS.replace("Server.test", "127.0.0.1") + 'ca_roots_file = "ca.pem"\n'
    text += 'client_cert_file = "cert.pem"\nclient_private_key_file = "key.pem"\n'
    files = {"ca_pem": certificates.authority, "cert_pem": own.certificate, "key_pem": own.key}
    found = configured(text, **{name: path.read_bytes() for name, path in files.items()})
    context = contexts(found.tls, "one", trust)["127.0.0.1"]()
    assert anyio.run(get, trust, context, server) == b"server"
    with pytest.raises((httpcore.ConnectError, httpcore.ReadError, httpcore.RemoteProtocolError)):
        anyio.run(get, trust, contexts(configured(TLS).tls, "one", trust)["other.test"](), server)


async def get(trust: Trust, context: ssl.SSLContext, port: int) -> bytes:
    handler = OutgoingHandler(trust, anything, OutgoingRules())
    async with handler._made(context) as pool:
        return (await pool.request("GET", f"https://127.0.0.1:{port}/")).content


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("[outbound_http]\nconnection_pooling = false", False),
        ("[outbound_http]\nmax_connections = 1", False),
        ("[outbound_networking]\nmax_total_connections = 1", False),
        ("[outbound_redis]\nmax_connections = 1", True),
    ],
)
def test_whether_connections_are_kept(trust: Trust, text: str, expected: bool) -> None:
    """One that is kept would count."""
    assert (
        _rules(Clients((), trust, configured(text)), "one", trust, Neighbours(AllowedHosts([], "")), Telemetry()).keeps
        == expected
    )


def test_limits() -> None:
    """Who comes too late waits; that of all protocols counts for each."""
    text = "[outbound_networking]\nmax_total_connections = 3\n[outbound_redis]\nmax_connections = 1\n"
    text += "[outbound_http]\nmax_concurrent_requests = 1"
    found = ConnectionLimits(configured(text))

    async def run() -> list[str]:
        entered: list[str] = []
        async with anyio.create_task_group() as tasks:

            async def hold(kind: str) -> None:
                async with found.of(kind):
                    entered.append(kind)
                    await anyio.sleep_forever()

            for kind in ("redis", "redis", "http", "http", "http", "mqtt"):
                tasks.start_soon(hold, kind)
                await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        async with found.of("redis"), found.of("http"), found.of("mqtt"):
            entered.append("all are given back")
        return entered

    assert anyio.run(run) == ["redis", "http", "http", "all are given back"]


def test_what_is_given_up_gives_back_what_it_has() -> None:
    """Its own limit let it in; it waits for that of all protocols."""
    text = "[outbound_networking]\nmax_total_connections = 1\n[outbound_redis]\nmax_connections = 1\n"
    found = ConnectionLimits(configured(text))

    async def run() -> str:
        async with found.of("mqtt"):
            with anyio.move_on_after(0.01):
                async with found.of("redis"):
                    return "too many"
        async with found.of("redis"):
            return "given back"

    assert anyio.run(run) == "given back"


def test_files_are_found_from_the_root(certificates: Certificates) -> None:
    for path in ("/etc/ca.pem", "etc/ca.pem"):
        text = toml("/runtime-config.toml", (TLS + f'ca_roots_file = "{path}"').encode())
        assert networking(text, Place({"/etc/ca.pem": certificates.authority.read_bytes()}.get), ["one", "two"]).tls
