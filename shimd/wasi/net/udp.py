"""``wasi:sockets/udp`` and ``udp-create-socket``."""

import select
import socket
from contextlib import suppress
from typing import Any

from shimd.component.results import Case, Err
from shimd.wasi.io import Pollable
from shimd.wasi.net import address
from shimd.wasi.net.base import Socket, is_ready, pollable, socket_errors
from shimd.wasi.net.rules import Permits, Use, check, everything

#: Most datagrams at a time, and the largest there can be, bytes.
_MOST, _SIZE = 16, 65535
Datagram = dict[str, Any]


class UdpCreateSocket:
    """``wasi:sockets/udp-create-socket``."""

    def __init__(self, permits: Permits = everything) -> None:
        self._permits = permits

    def create_udp_socket(self, family: str) -> "UdpSocket":
        return UdpSocket(Socket.open(family, socket.SOCK_DGRAM), permits=self._permits)


class UdpSocket(Socket):
    """``udp-socket``."""

    unicast_hop_limit = Socket.hop_limit
    set_unicast_hop_limit = Socket.set_hop_limit

    def stream(self, remote: Case | None) -> tuple["IncomingDatagrams", "OutgoingDatagrams"]:
        self.must_be("bound", "connected")
        if remote is None and self.state == "connected":
            raise Err("not-supported")  # the host's sockets cannot be disconnected from Python
        if remote is not None:
            peer = address.remote(self.sock.family, remote)
            check(self.permits, Use.UDP, peer)
            with socket_errors():
                self.sock.connect(peer)
            self.state = "connected"
        outgoing = OutgoingDatagrams(self.sock, self.state == "connected", self.permits)
        return IncomingDatagrams(self.sock, self.permits), outgoing

    def subscribe(self) -> Pollable:
        return pollable(self.sock, lambda: 0)


class IncomingDatagrams:
    """``incoming-datagram-stream``; what comes from where none may go is dropped."""

    def __init__(self, sock: socket.socket, permits: Permits) -> None:
        self._sock = sock
        self._permits = permits

    def receive(self, most: int) -> list[Datagram]:
        found: list[Datagram] = []
        with socket_errors(), suppress(BlockingIOError):
            while len(found) < min(most, _MOST):
                data, sender = self._sock.recvfrom(_SIZE)
                if not self._permits(Use.UDP, sender[0], sender[1]):
                    continue
                found.append({"data": data, "remote-address": address.from_host(self._sock.family, sender)})
        return found

    def subscribe(self) -> Pollable:
        return pollable(self._sock, lambda: select.POLLIN)


class OutgoingDatagrams:
    """``outgoing-datagram-stream``."""

    def __init__(self, sock: socket.socket, connected: bool, permits: Permits) -> None:
        self._sock = sock
        self._connected = connected
        self._permits = permits

    def check_send(self) -> int:
        return _MOST if is_ready(self._sock, select.POLLOUT) else 0

    def send(self, datagrams: list[Datagram]) -> int:
        """Returns how many datagrams were sent; an error is the first one's."""
        for number, datagram in enumerate(datagrams):
            try:
                self._send(datagram)
            except Err:
                if number:
                    return number
                raise
        return len(datagrams)

    def _send(self, datagram: Datagram) -> None:
        remote = datagram["remote-address"]
        if remote is None and not self._connected:
            raise Err("invalid-argument")
        if remote is None or self._connected:
            with socket_errors():
                self._check_same(remote)
                self._sock.send(datagram["data"])
            return
        peer = address.remote(self._sock.family, remote)
        check(self._permits, Use.UDP, peer)
        with socket_errors():
            self._sock.sendto(datagram["data"], peer)

    def _check_same(self, remote: Case | None) -> None:
        peer = address.from_host(self._sock.family, self._sock.getpeername())
        if remote is not None and remote != peer:
            raise Err("invalid-argument")

    def subscribe(self) -> Pollable:
        return pollable(self._sock, lambda: select.POLLOUT)
