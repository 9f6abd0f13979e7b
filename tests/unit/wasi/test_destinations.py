"""Which addresses are blocked, and that those of a name are looked up once, by the C library's resolver."""

import ipaddress
import socket

import anyio
import httpcore
import pytest

from shimd.wasi.destinations import Destinations, Prohibited
from shimd.wasi.http.outgoing import OutgoingHandler, OutgoingRules, anything, error_code
from shimd.wasi.trust import BuiltIn, Trust
from tests.unit.resolver import NameServer, with_names


def blocking(*networks: str, private: bool = False) -> Destinations:
    return Destinations([ipaddress.ip_network(network) for network in networks], private=private)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.1.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fc00::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "::ffff:10.1.2.3",
        "::10.1.2.3",
        "64:ff9b::10.1.2.3",
        "64:ff9b:1::10.1.2.3",
        "::ffff:0:10.1.2.3",
        "2002:0a01:0203::1",
    ],
)
def test_private_networks(address: str) -> None:
    assert blocking(private=True).blocks(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2600::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_public_networks(address: str) -> None:
    assert not blocking(private=True).blocks(ipaddress.ip_address(address))
    assert not blocking("10.0.0.0/8").blocks(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True),
        ("8.9.8.8", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::8.8.8.8", True),
        ("64:ff9b:1::8.8.8.8", True),
        ("::ffff:0:8.8.8.8", True),
        ("fd00::1", True),
    ],
)
def test_networks(address: str, expected: bool) -> None:
    assert blocking("8.8.0.0/16", "fd00::/8").blocks(ipaddress.ip_address(address)) == expected


@pytest.mark.parametrize(
    ("address", "network"), [("0.0.0.0", "127.0.0.0/8"), ("::", "::1/128"), ("::", "127.0.0.1/32")]
)
def test_the_address_of_none_is_loopbacks(address: str, network: str) -> None:
    """So the kernel has it, where one connects to it."""
    assert blocking(network).blocks(ipaddress.ip_address(address))


def test_where_nothing_is_blocked_nothing_is_looked_up() -> None:
    assert anyio.run(Destinations().addresses, "no.such.name.invalid", 1) == ["no.such.name.invalid"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "::1", "::ffff:127.0.0.1"])
def test_addresses_however_they_are_written(host: str) -> None:
    with pytest.raises(Prohibited, match="in a network that the runtime configuration blocks"):
        anyio.run(blocking(private=True).addresses, host, 80)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("8.8.8.8", False), ("localhost", False), ("127.1", False)],
)
def test_what_takes_no_look_up(host: str, expected: bool) -> None:
    assert blocking(private=True).refuses(host) == expected
    assert not Destinations().refuses(host)


def test_what_is_blocked_is_left_out_of_an_answer() -> None:
    def look(_names: NameServer) -> object:
        return anyio.run(blocking("127.0.0.1/32").addresses, "both.test", 80)

    assert with_names({"both.test": [["127.0.0.1", "127.0.0.2"]]}, look) == "['127.0.0.2']"


def test_a_name_that_leads_into_a_blocked_network_only() -> None:
    def look(_names: NameServer) -> object:
        return anyio.run(blocking("127.0.0.0/8").addresses, "blocked.test", 80)

    assert with_names({"blocked.test": [["127.0.0.1", "127.0.0.2"]]}, look).startswith("Prohibited: blocked.test is in")


REBINDING = {"rebinding.test": [["127.0.0.2"], ["127.0.0.1"]]}


def test_a_name_that_leads_elsewhere_the_next_time() -> None:
    """What was checked is connected to; the next connection is checked anew."""

    def ask(names: NameServer) -> object:
        port = _listen("127.0.0.2", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK")
        return [*anyio.run(_get, f"http://rebinding.test:{port}/"), names.asked]

    said = with_names(REBINDING, ask)
    assert said == "['OK', 'destination-IP-prohibited', ['rebinding.test', 'rebinding.test']]"


async def _get(url: str) -> list[str]:
    trust = Trust(BuiltIn(), {})
    handler = OutgoingHandler(trust, anything, OutgoingRules(blocking("127.0.0.1/32")))
    found = []
    async with handler._made(trust.context) as pool:
        for _ in range(2):
            try:
                found.append((await pool.request("GET", url)).content.decode())
            except httpcore.ConnectError as error:
                found.append(error_code(error).tag)
    return found


def test_a_redirect_is_an_answer() -> None:
    """Whoever follows it sends a request, which is checked."""
    port = _listen("127.0.0.1", b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

    async def get() -> int:
        trust = Trust(BuiltIn(), {})
        async with OutgoingHandler(trust)._made(trust.context) as pool:
            return (await pool.request("GET", f"http://127.0.0.1:{port}/")).status

    assert anyio.run(get) == 302


def _listen(address: str, answer: bytes) -> int:
    """A server that answers everybody at once, on a thread; returns its port."""
    import threading

    server = socket.create_server((address, 0))

    def serve() -> None:
        while True:
            connection, _client = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


def test_the_next_address_is_tried() -> None:
    """Nobody listens at the first."""

    def ask(_names: NameServer) -> object:
        port = _listen("127.0.0.3", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK")
        return anyio.run(_get, f"http://several.test:{port}/")

    assert with_names({"several.test": [["127.0.0.2", "127.0.0.3"]]}, ask) == "['OK', 'OK']"
