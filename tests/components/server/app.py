"""A command of WASI 0.2 that serves HTTP by sockets of its own: each request is answered with what it is told.

``listen PORT``: serve at all addresses. ``fetch HOST PORT``: say what a server answers.
"""

import sys
from collections.abc import Callable
from typing import TypeVar

from wit_world import exports
from wit_world.imports import instance_network, ip_name_lookup, tcp_create_socket
from wit_world.imports.network import (
    ErrorCode,
    IpAddress_Ipv4,
    IpAddressFamily,
    IpSocketAddress_Ipv4,
    Ipv4SocketAddress,
)
from wit_world.imports.poll import Pollable
from wit_world.types import Err

T = TypeVar("T")
BODY = b"hello from a component!\n"


class Run(exports.Run):
    def run(self) -> None:
        what, *arguments = sys.argv[1:]
        commands: dict[str, Callable[..., None]] = {"listen": listen, "fetch": fetch}
        try:
            commands[what](*arguments)
        except Err as error:
            print(f"{what}: {error.value}", file=sys.stderr)
            raise


def waiting(action: Callable[[], T], pollable: Pollable) -> T:
    """What is asked again until it no longer would block."""
    while True:
        try:
            return action()
        except Err as error:
            if error.value != ErrorCode.WOULD_BLOCK:
                raise
            pollable.block()


def listen(port: str) -> None:
    socket = tcp_create_socket.create_tcp_socket(IpAddressFamily.IPV4)
    ready = socket.subscribe()
    everywhere = IpSocketAddress_Ipv4(Ipv4SocketAddress(int(port), (0, 0, 0, 0)))
    socket.start_bind(instance_network.instance_network(), everywhere)
    waiting(socket.finish_bind, ready)
    socket.start_listen()
    waiting(socket.finish_listen, ready)
    print(f"listening on port {port}", flush=True)
    while True:
        connection, received, sent = waiting(socket.accept, ready)
        received.blocking_read(4096)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\nConnection: close\r\n\r\n"
        sent.blocking_write_and_flush(head.encode() + BODY)
        for resource in (received, sent, connection):
            resource.__exit__(None, None, None)


def fetch(host: str, port: str) -> None:
    network = instance_network.instance_network()
    addresses = ip_name_lookup.resolve_addresses(network, host)
    while not isinstance(found := waiting(addresses.resolve_next_address, addresses.subscribe()), IpAddress_Ipv4):
        pass
    socket = tcp_create_socket.create_tcp_socket(IpAddressFamily.IPV4)
    socket.start_connect(network, IpSocketAddress_Ipv4(Ipv4SocketAddress(int(port), found.value)))
    received, sent = waiting(socket.finish_connect, socket.subscribe())
    sent.blocking_write_and_flush(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while BODY not in answer:
        answer += received.blocking_read(4096)
    print(answer.decode().rpartition("\r\n")[2], end="")
