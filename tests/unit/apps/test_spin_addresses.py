"""Clients of redis, PostgreSQL, MySQL and MQTT connect to an address that was checked, and to no other.

The name server is real, and answers otherwise the second time; certificates are those of names, not of addresses.
"""

import gc
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from shimd.apps.spin.clients import Clients, MqttAddress, mqtt_errors, mysql_errors, postgres_errors, redis_errors
from shimd.apps.spin.networking import Networking
from shimd.wasi.destinations import Destinations, Prohibited
from shimd.wasi.trust import BuiltIn, Trust
from tests.certificates import Certificates, made
from tests.unit.resolver import NameServer, with_names

KINDS = ("redis", "postgres", "mysql", "mqtt")
REBINDING = {"rebinding.test": [["127.0.0.2"], ["127.0.0.1"]]}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library of MQTT waits for as long after its server has hung up."""
    monkeypatch.setattr("shimd.apps.spin.clients.CONNECT", 2)


def clients(*blocked: str, **environment: str) -> Clients:
    networks = [ipaddress.ip_network(network) for network in blocked]
    return Clients(KINDS, Trust(BuiltIn(), environment), Networking(Destinations(networks)))


async def connect(kind: str, clients: Clients, host: str, port: int, *, tls: bool = False) -> None:
    """As ``shimd/apps/spin/outbound`` does for a guest."""
    who: dict[str, Any] = {"host": host, "port": port, "user": "u", "password": "p", "database": "d"}

    async def connected(at: str) -> None:
        match kind:
            case "redis":
                await clients.redis(f"redis{'s' * tls}://{host}:{port}", at=at).initialize()
            case "postgres":
                await clients.postgres(**who, at=at, tls="require" if tls else "disable")
            case "mysql":
                await anyio.to_thread.run_sync(lambda: clients.mysql(**who, at=at, tls=tls))
            case "mqtt":
                await clients.mqtt(MqttAddress(host, port, tls), at).__aenter__()

    await clients.reach(host, port, connected)


def failed(kind: str, clients: Clients, host: str, port: int, *, tls: bool = False) -> str:
    """Connect to a server that hangs up; returns the kind of error."""
    errors = {"redis": redis_errors, "postgres": postgres_errors, "mysql": mysql_errors, "mqtt": mqtt_errors}[kind]()
    try:
        anyio.run(lambda: connect(kind, clients, host, port, tls=tls))
    except errors as error:
        return type(error).__name__
    return "nothing"


class Listener:
    """A server that hangs up, and notes at which of its addresses it was connected to."""

    def __init__(self, address: str = "0.0.0.0") -> None:
        self.connections: list[str] = []
        self._server = socket.create_server((address, 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _client = self._server.accept()
            self.connections.append(connection.getsockname()[0])
            connection.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_leads_elsewhere_the_next_time(kind: str) -> None:
    def act(names: NameServer) -> object:
        listener = Listener()
        guest = clients("127.0.0.1/32")
        first = failed(kind, guest, "rebinding.test", listener.port)
        second = failed(kind, guest, "rebinding.test", listener.port)
        return [first != "Prohibited", second, sorted(set(listener.connections)), len(names.asked)]

    assert with_names(REBINDING, act) == "[True, 'Prohibited', ['127.0.0.2'], 2]"


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_address_is_tried(kind: str) -> None:
    """Nobody listens at the first."""

    def act(_names: NameServer) -> object:
        listener = Listener("127.0.0.3")
        failed(kind, clients("127.0.0.1/32"), "several.test", listener.port)
        return sorted(set(listener.connections))

    assert with_names({"several.test": [["127.0.0.2", "127.0.0.3"]]}, act) == "['127.0.0.3']"


def test_an_address_that_is_blocked() -> None:
    with pytest.raises(Prohibited):
        anyio.run(lambda: connect("redis", clients("127.0.0.0/8"), "127.0.0.1", 1))


@contextmanager
def greeting(certificates: Certificates, kind: str) -> Iterator[tuple[int, list[str]]]:
    """A server that takes one connection, agrees on TLS as that protocol does, and hangs up.

    :returns: its port, and what came of it
    """
    found: list[str] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection = server.accept()[0]
        if kind == "postgres":
            connection.recv(8)
            connection.sendall(b"S")
        try:
            with certificates.server().wrap_socket(connection, server_side=True) as talk:
                found.append("trusted" if talk.recv(1) else "not")  # what a client says shows that it trusts us
        except (ssl.SSLError, OSError):
            found.append("not")

    thread = threading.Thread(target=serve)
    thread.start()
    with server:
        yield int(server.getsockname()[1]), found
        thread.join(30)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # paho's socket, where it trusts nobody
@pytest.mark.parametrize("kind", ["redis", "postgres", "mqtt"])
@pytest.mark.parametrize(("name", "expected"), [("localhost", "trusted"), ("other.test", "not")])
def test_the_certificate_has_to_be_that_of_the_name(tmp_path: Path, kind: str, name: str, expected: str) -> None:
    """Though it is an address that is connected to."""
    certificates = made(tmp_path, f"DNS:{name}")
    guest = clients("10.0.0.0/8", SSL_CERT_FILE=str(certificates.authority))
    with greeting(certificates, kind) as (port, found):
        failed(kind, guest, "localhost", port, tls=True)
    gc.collect()
    assert found == [expected]
