"""``wasi:sockets`` as a guest calls it, over the loopback device."""

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from shimd.component.results import Case, Err
from shimd.wasi.io import WRITABLE
from shimd.wasi.net import NameLookup, TcpCreateSocket, UdpCreateSocket
from shimd.wasi.net.base import is_ready
from shimd.wasi.net.rules import Use
from shimd.wasi.net.tcp import TcpOutput, TcpSocket
from shimd.wasi.net.udp import UdpSocket

NETWORK = object()
ANY = Case("ipv4", {"port": 0, "address": (127, 0, 0, 1)})
ANY6 = Case("ipv6", {"port": 0, "flow-info": 0, "address": (0,) * 7 + (1,), "scope-id": 0})
Opened = TcpSocket | UdpSocket


@pytest.fixture
def opened() -> Iterator[Callable[[Opened], Opened]]:
    found: list[Opened] = []

    def keep(one: Opened) -> Opened:
        found.append(one)
        return one

    yield keep
    for one in found:
        one.close()


def refused(code: str, function: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(Err) as error:
        function(*arguments)
    assert error.value.value == code


def listening(family: str = "ipv4", address: Case = ANY) -> TcpSocket:
    one = TcpCreateSocket().create_tcp_socket(family)
    one.start_bind(NETWORK, address)
    one.finish_bind()
    one.start_listen()
    one.finish_listen()
    return one


@pytest.mark.parametrize(("family", "address"), [("ipv4", ANY), ("ipv6", ANY6)])
def test_a_connection(opened: Callable[[Opened], Opened], family: str, address: Case) -> None:
    server, client = listening(family, address), TcpCreateSocket().create_tcp_socket(family)
    opened(server), opened(client)
    assert server.is_listening()
    refused("would-block", server.accept)
    client.start_connect(NETWORK, server.local_address())
    client.subscribe().ready()
    received, sent = client.finish_connect()
    accepted, received_there, sent_there = server.accept()
    opened(accepted)
    assert accepted.remote_address() == client.local_address()
    assert client.address_family() == family
    assert not received.ready()
    assert received.read(10) == b""
    assert sent.check_write() == WRITABLE
    sent.write(b"hello")
    assert received_there.read(10) == b"hello"
    client.shutdown("send")
    refused_stream(lambda: received_there.read_available(10))
    sent_there.write(b"answer")
    assert received.read_available(3) == b"ans"


def refused_stream(function: Callable[[], object]) -> None:
    with pytest.raises(Err) as error:
        function()
    assert error.value.value == Case("closed")


def test_what_was_taken_is_sent(opened: Callable[[Opened], Opened]) -> None:
    """However much the kernel takes at a time; and no more is taken meanwhile."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        sent, total = TcpOutput(ours), 0
        while sent.check_write():
            sent.write(bytes(WRITABLE))
            total += WRITABLE
        received = 0
        while received < total:
            received += len(theirs.recv(1 << 20))
            sent.flush()
        assert received == total
        assert sent.check_write() == WRITABLE
        theirs.close()
        with pytest.raises(Err):
            while True:
                sent.write(bytes(WRITABLE))


def test_states(opened: Callable[[Opened], Opened]) -> None:
    one = TcpCreateSocket().create_tcp_socket("ipv4")
    opened(one)
    wrong: list[Callable[[], object]] = [one.accept, one.start_listen, one.local_address, one.remote_address]
    for function in wrong:
        refused("invalid-state", function)
    idle: list[Callable[[], object]] = [one.finish_bind, one.finish_listen, one.finish_connect]
    for function in idle:
        refused("not-in-progress", function)
    refused("invalid-argument", one.start_bind, NETWORK, ANY6)
    refused("invalid-argument", one.start_connect, NETWORK, ANY)
    refused("invalid-argument", one.set_listen_backlog_size, 0)
    one.start_bind(NETWORK, ANY)
    refused("invalid-state", one.start_bind, NETWORK, ANY)


def test_nobody_there(opened: Callable[[Opened], Opened]) -> None:
    server, client = listening(), TcpCreateSocket().create_tcp_socket("ipv4")
    opened(client)
    address = server.local_address()
    server.close()
    with suppress(Err):
        client.start_connect(NETWORK, address)
        refused("connection-refused", client.finish_connect)
    other = listening()
    opened(other)
    second = TcpCreateSocket().create_tcp_socket("ipv4")
    opened(second)
    refused("address-in-use", second.start_bind, NETWORK, other.local_address())


def test_options(opened: Callable[[Opened], Opened]) -> None:
    one = TcpCreateSocket().create_tcp_socket("ipv4")
    opened(one)
    one.set_keep_alive_enabled(True)
    one.set_keep_alive_idle_time(1_500_000_000)
    one.set_keep_alive_count(3)
    one.set_hop_limit(9)
    one.set_receive_buffer_size(8192)
    assert one.keep_alive_enabled()
    assert one.keep_alive_idle_time() == 2_000_000_000, "rounded up"
    assert (one.keep_alive_count(), one.hop_limit(), one.receive_buffer_size()) == (3, 9, 8192)
    refused("invalid-argument", one.set_keep_alive_idle_time, 0)


def bound(family: str = "ipv4") -> UdpSocket:
    one = UdpCreateSocket().create_udp_socket(family)
    one.start_bind(NETWORK, ANY if family == "ipv4" else ANY6)
    one.finish_bind()
    return one


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_datagrams(opened: Callable[[Opened], Opened], family: str) -> None:
    server, client = bound(family), bound(family)
    opened(server), opened(client)
    incoming, outgoing = server.stream(None)
    _nothing, asking = client.stream(server.local_address())
    assert incoming.receive(5) == []
    assert asking.check_send() > 0
    assert asking.send([{"data": data, "remote-address": None} for data in (b"one", b"two")]) == 2
    assert is_ready(server.sock, select.POLLIN)
    found = incoming.receive(5)
    assert [datagram["data"] for datagram in found] == [b"one", b"two"]
    assert found[0]["remote-address"] == client.local_address()
    assert outgoing.send([{"data": b"back", "remote-address": client.local_address()}]) == 1
    assert [datagram["data"] for datagram in _nothing.receive(5)] == [b"back"]
    refused("invalid-argument", outgoing.send, [{"data": b"", "remote-address": None}])
    refused("invalid-argument", asking.send, [{"data": b"", "remote-address": client.local_address()}])


def test_names() -> None:
    found = NameLookup().resolve_addresses(NETWORK, "127.0.0.1")
    assert found.resolve_next_address() == Case("ipv4", (127, 0, 0, 1))
    assert found.resolve_next_address() is None
    assert NameLookup().resolve_addresses(NETWORK, "::1").resolve_next_address() == Case("ipv6", (0,) * 7 + (1,))
    refused("name-unresolvable", NameLookup().resolve_addresses, NETWORK, "no such name")


class Rules:
    """Permits what it is told to, and notes what it is asked."""

    def __init__(self, *permitted: Use) -> None:
        self.permitted, self.asked = permitted, list[tuple[Use, str]]()

    def __call__(self, use: Use, host: str, _port: int) -> bool:
        self.asked.append((use, host))
        return use in self.permitted


def test_rules_of_connections(opened: Callable[[Opened], Opened]) -> None:
    server = listening()
    rules = Rules(Use.BIND)
    client = TcpCreateSocket(rules).create_tcp_socket("ipv4")
    opened(server), opened(client)
    client.start_bind(NETWORK, ANY)
    client.finish_bind()
    refused("access-denied", client.start_listen)
    refused("access-denied", client.start_connect, NETWORK, server.local_address())
    assert rules.asked == [(use, "127.0.0.1") for use in (Use.BIND, Use.LISTEN, Use.TCP)]
    refused("would-block", server.accept)
    rules.permitted = (Use.TCP,)
    client.start_connect(NETWORK, server.local_address())
    client.subscribe().ready()
    client.finish_connect()
    nothing = TcpCreateSocket(Rules()).create_tcp_socket("ipv4")
    opened(nothing)
    refused("access-denied", nothing.start_bind, NETWORK, ANY)


def test_rules_of_datagrams(opened: Callable[[Opened], Opened]) -> None:
    rules = Rules(Use.BIND)
    one, other = UdpCreateSocket(rules).create_udp_socket("ipv4"), UdpCreateSocket().create_udp_socket("ipv4")
    for each in (one, other):
        opened(each)
        each.start_bind(NETWORK, ANY)
        each.finish_bind()
    incoming, outgoing = one.stream(None)
    received, sent = other.stream(None)
    to_one, to_other = ({"data": b"x", "remote-address": each.local_address()} for each in (one, other))
    refused("access-denied", outgoing.send, [to_other])
    refused("access-denied", one.stream, other.local_address())
    assert sent.send([to_one]) == 1
    incoming.subscribe().ready()
    assert incoming.receive(10) == []  # it is from where none may go
    rules.permitted = (Use.UDP,)
    assert outgoing.send([to_other]) == 1
    received.subscribe().ready()
    assert received.receive(10) == [{"data": b"x", "remote-address": one.local_address()}]
    assert sent.send([to_one]) == 1
    incoming.subscribe().ready()
    assert len(incoming.receive(10)) == 1
