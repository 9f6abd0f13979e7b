"""Code that TCP's and UDP's sockets share."""

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio

from shimd.component.results import Case, Err
from shimd.wasi.io import Pollable
from shimd.wasi.net import address
from shimd.wasi.net.rules import Permits, Use, check, everything

T = TypeVar("T")


class Socket:
    """A socket of the host's, which never blocks; its state is named as in the interface's text."""

    def __init__(self, sock: socket.socket, state: str = "unbound", permits: Permits = everything) -> None:
        self.sock = sock
        self.state = state
        self.permits = permits
        sock.setblocking(False)

    @classmethod
    def open(cls, family: str, kind: int) -> socket.socket:
        """:raises Err: of the host's"""
        with socket_errors():
            sock = socket.socket(address.FAMILIES[family], kind)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return sock

    def must_be(self, *states: str) -> None:
        if self.state not in states:
            raise Err("invalid-state")

    def finish(self, started: str, state: str) -> None:
        """Finish an operation of two halves (``start-bind`` and ``finish-bind``, say)."""
        if self.state != started:
            raise Err("not-in-progress")
        self.state = state

    def start_bind(self, _network: object, local: Case) -> None:
        self.must_be("unbound")
        own = address.to_host(self.sock.family, local)
        check(self.permits, Use.BIND, own)
        with socket_errors():
            self.sock.bind(own)
        self.state = "bind-started"

    def finish_bind(self) -> None:
        self.finish("bind-started", "bound")

    def local_address(self) -> Case:
        if self.state in ("unbound", "bind-started"):
            raise Err("invalid-state")
        with socket_errors():
            return address.from_host(self.sock.family, self.sock.getsockname())

    def remote_address(self) -> Case:
        self.must_be("connected")
        with socket_errors():
            return address.from_host(self.sock.family, self.sock.getpeername())

    def address_family(self) -> str:
        return address.family_name(self.sock.family)

    def receive_buffer_size(self) -> int:
        return self.option(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # the kernel doubles it (socket(7))

    def set_receive_buffer_size(self, value: int) -> None:
        self.set_option(socket.SOL_SOCKET, socket.SO_RCVBUF, value)

    def send_buffer_size(self) -> int:
        return self.option(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2

    def set_send_buffer_size(self, value: int) -> None:
        self.set_option(socket.SOL_SOCKET, socket.SO_SNDBUF, value)

    def hop_limit(self) -> int:
        return self.option(*self._hops())

    def set_hop_limit(self, value: int) -> None:
        self.set_option(*self._hops(), value)

    def _hops(self) -> tuple[int, int]:
        if self.sock.family == socket.AF_INET:
            return socket.IPPROTO_IP, socket.IP_TTL
        return socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS

    def option(self, level: int, name: int) -> int:
        with socket_errors():
            return self.sock.getsockopt(level, name)

    def set_option(self, level: int, name: int, value: int) -> None:
        """:raises Err: ``invalid-argument``: 0 is no limit"""
        if not value:
            raise Err("invalid-argument")
        with socket_errors():
            self.sock.setsockopt(level, name, min(value, (1 << 31) - 1))

    def close(self) -> None:
        self.sock.close()


@contextmanager
def socket_errors() -> Iterator[None]:
    """Convert the host's errors to the interface's ``error-code``."""
    try:
        yield
    except OSError as error:
        raise address.failure(error) from None


def is_ready(sock: socket.socket, event: int) -> bool:
    """Returns whether a socket has an event (``select.POLLIN``, ``POLLOUT``); an error to report is one, too."""
    if sock.fileno() < 0:
        return True
    poller = select.poll()
    poller.register(sock, event)
    return bool(poller.poll(0))


def pollable(sock: socket.socket, event: Callable[[], int]) -> Pollable:
    """:param event: what to wait for, asked anew each time; 0: nothing, it is ready"""

    def ready() -> bool:
        wanted = event()
        return not wanted or is_ready(sock, wanted)

    async def wait() -> None:
        await wait_for_event(sock, event())

    return Pollable(ready, wait)


async def wait_for_event(sock: socket.socket, event: int) -> None:
    if event == select.POLLIN:
        await anyio.wait_readable(sock)
    elif event:
        await anyio.wait_writable(sock)
