"""``wasi:sockets/tcp`` and ``tcp-create-socket``."""

import select
import socket
from contextlib import suppress

from shimd.component.results import Case, Err
from shimd.wasi.io import WRITABLE, InputStream, OutputStream, Pollable, closed, failed
from shimd.wasi.net import address
from shimd.wasi.net.base import Socket, is_ready, pollable, socket_errors, wait_for_event
from shimd.wasi.net.rules import Permits, Use, check, everything

_WAYS = {"receive": socket.SHUT_RD, "send": socket.SHUT_WR, "both": socket.SHUT_RDWR}
_SECOND = 1_000_000_000


class TcpCreateSocket:
    """``wasi:sockets/tcp-create-socket``."""

    def __init__(self, permits: Permits = everything) -> None:
        self._permits = permits

    def create_tcp_socket(self, family: str) -> "TcpSocket":
        return TcpSocket(Socket.open(family, socket.SOCK_STREAM), permits=self._permits)


class TcpSocket(Socket):
    """``tcp-socket``."""

    def __init__(self, sock: socket.socket, state: str = "unbound", permits: Permits = everything) -> None:
        super().__init__(sock, state, permits)
        self._backlog = 128

    def start_bind(self, network: object, local: Case) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        super().start_bind(network, local)

    def start_listen(self) -> None:
        self.must_be("bound")
        with socket_errors():
            own = self.sock.getsockname()
        check(self.permits, Use.LISTEN, own)
        with socket_errors():
            self.sock.listen(self._backlog)
        self.state = "listen-started"

    def finish_listen(self) -> None:
        self.finish("listen-started", "listening")

    def accept(self) -> tuple["TcpSocket", InputStream, OutputStream]:
        self.must_be("listening")
        with socket_errors():
            connection, _address = self.sock.accept()
        accepted = TcpSocket(connection, "connected")
        return accepted, TcpInput(connection), TcpOutput(connection)

    def start_connect(self, _network: object, remote: Case) -> None:
        self.must_be("unbound", "bound")
        peer = address.remote(self.sock.family, remote)
        check(self.permits, Use.TCP, peer)
        with socket_errors(), suppress(BlockingIOError):  # it is on its way
            self.sock.connect(peer)
        self.state = "connect-started"

    def finish_connect(self) -> tuple[InputStream, OutputStream]:
        if self.state != "connect-started":
            raise Err("not-in-progress")
        if not is_ready(self.sock, select.POLLOUT):
            raise Err("would-block")
        if error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.state = "closed"
            raise address.failure(OSError(error, ""))
        self.state = "connected"
        return TcpInput(self.sock), TcpOutput(self.sock)

    def is_listening(self) -> bool:
        return self.state == "listening"

    def set_listen_backlog_size(self, value: int) -> None:
        if not value:
            raise Err("invalid-argument")
        self._backlog = min(value, (1 << 31) - 1)
        if self.is_listening():
            with socket_errors():
                self.sock.listen(self._backlog)

    def keep_alive_enabled(self) -> bool:
        return bool(self.option(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def set_keep_alive_enabled(self, value: bool) -> None:
        with socket_errors():
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, value)

    def keep_alive_idle_time(self) -> int:
        return self.option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) * _SECOND

    def set_keep_alive_idle_time(self, value: int) -> None:
        self.set_option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _seconds(value))

    def keep_alive_interval(self) -> int:
        return self.option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) * _SECOND

    def set_keep_alive_interval(self, value: int) -> None:
        self.set_option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _seconds(value))

    def keep_alive_count(self) -> int:
        return self.option(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)

    def set_keep_alive_count(self, value: int) -> None:
        self.set_option(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, min(value, 127))

    def subscribe(self) -> Pollable:
        return pollable(self.sock, self._awaited)

    def _awaited(self) -> int:
        return {"listening": select.POLLIN, "connect-started": select.POLLOUT}.get(self.state, 0)

    def shutdown(self, way: str) -> None:
        self.must_be("connected")
        with socket_errors():
            self.sock.shutdown(_WAYS[way])


def _seconds(nanoseconds: int) -> int:
    """Convert to seconds, rounded up, within what the kernel takes (tcp(7)); 0 stays 0."""
    return min(-(-nanoseconds // _SECOND), 32767)


class TcpInput(InputStream):
    """The stream of what a connection's other side sends."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def ready(self) -> bool:
        return is_ready(self._sock, select.POLLIN)

    async def wait(self) -> None:
        await wait_for_event(self._sock, select.POLLIN)

    def read_available(self, length: int) -> bytes:
        try:
            return self._sock.recv(length) or closed()
        except BlockingIOError:
            return b""
        except OSError as error:
            failed(error.strerror or str(error), error)


class TcpOutput(OutputStream):
    """The stream to a connection's other side: data is buffered at once, and more only when the kernel has all of
    it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._pending = b""

    def check_write(self) -> int:
        self.flush()
        return WRITABLE if not self._pending and is_ready(self._sock, select.POLLOUT) else 0

    async def wait(self) -> None:
        await wait_for_event(self._sock, select.POLLOUT)

    def write(self, data: bytes) -> None:
        self._pending += data
        self.flush()

    def flush(self) -> None:
        try:
            while self._pending:
                self._pending = self._pending[self._sock.send(self._pending, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._pending = b""
            closed() if isinstance(error, ConnectionError) else failed(error.strerror or str(error), error)

    def blocking_write_and_flush(self, data: bytes) -> None:
        super().blocking_write_and_flush(data)
        self.blocking_flush()

    def close(self) -> None:
        """Send what is buffered, unless nobody is there any more."""
        with suppress(Err):
            self.blocking_flush()
