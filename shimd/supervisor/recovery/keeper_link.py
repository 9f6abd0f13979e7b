"""A connection to a keeper, and how one is started (:mod:`shimd.protocol.keeper`)."""

import array
import errno
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import anyio

from shimd.errors import AlreadyExists, ShimdError, Unavailable
from shimd.linux.passed import receive_with_descriptors
from shimd.linux.peer import peer_pid
from shimd.linux.spawn import spawn
from shimd.log import logger
from shimd.protocol import keeper as protocol
from shimd.protocol.constants import LISTEN_FD, MAX_FDS
from shimd.protocol.keeper import VERSION, Kind, NotAPacket, Packet

_log = logger(__name__)
#: Seconds: for a keeper to answer, and once more after it was woken; and for a supervisor before us to be gone.
_PATIENCE = 5.0
_PREDECESSOR = 5.0


class Link:
    """One keeper, connected.

    :param sock: non-blocking; closed with the link
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._waiting = anyio.Lock()
        self.version = 0
        self.pid = 0
        self.complete = False
        """Whether the keeper has what it was greeted with."""

    def close(self) -> None:
        anyio.notify_closing(self._sock)
        self._sock.close()

    def send(self, packet: Packet, fds: Sequence[int] = ()) -> None:
        """:raises BlockingIOError: the keeper has not read what came before

        :raises OSError: as of sendmsg(2)
        """
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._sock.sendmsg([protocol.encode(packet)], ancillary, socket.MSG_NOSIGNAL)

    def send_last(self, packet: Packet, seconds: float) -> None:
        """Send, and wait for room if need be, not longer than that.

        :raises OSError: as of sendmsg(2), or TimeoutError
        """
        self._sock.settimeout(seconds)
        try:
            self.send(packet)
        finally:
            self._sock.setblocking(False)

    async def send_in_turn(self, packet: Packet, fds: Sequence[int] = ()) -> None:
        """Send when there is room.

        :raises OSError: as of sendmsg(2)
        """
        while True:
            try:
                return self.send(packet, fds)
            except BlockingIOError:
                await self.room()

    async def room(self) -> None:
        """Wait for room to send in.

        :raises OSError: the link was closed
        """
        async with self._waiting:
            try:
                await anyio.wait_writable(self._sock)
            except (anyio.ClosedResourceError, ValueError) as error:
                raise ConnectionResetError from error

    async def receive(self) -> tuple[Packet, list[int]] | None:
        """The next packet with its descriptors, which are the caller's; ``None`` when the keeper is gone.

        :raises OSError: as of recvmsg(2); there was no room for all of its descriptors
        """
        while True:
            await anyio.wait_readable(self._sock)
            with suppress(BlockingIOError, ConnectionResetError):
                return self._received()

    def _received(self) -> tuple[Packet, list[int]] | None:
        data, fds, flags = receive_with_descriptors(self._sock, protocol.MAX_SIZE + 1, MAX_FDS)
        try:
            if not data:
                return None
            packet = protocol.decode(data)
            if flags & socket.MSG_CTRUNC:
                close_all(fds)
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), packet.name)
            return packet, fds
        except NotAPacket as error:
            _log.error("the keeper says what makes no sense: %s", error)
            close_all(fds)
            return None

    def greet(self, command: Sequence[int]) -> None:
        """Say who we are; :meth:`answered` hears the answer.

        :param command: what starts us again: the command's file and its descriptors; none: somebody else does
        :raises OSError: the keeper is gone
        """
        self.send(Packet(Kind.HELLO, numbers=(VERSION, protocol.RESTARTS if command else 0)), command)

    async def answered(self) -> None:
        """Learn who the keeper is.

        :raises AlreadyExists: another supervisor is connected
        :raises Unavailable: the keeper is gone
        """
        while (received := await self.receive()) is not None:
            packet, fds = received
            close_all(fds)
            if packet.kind is Kind.FAILED:
                raise AlreadyExists("another supervisor is connected to the keeper")
            if packet.kind is Kind.HELLO:
                self.met(packet)
                return
        raise Unavailable("the keeper is gone")

    def met(self, packet: Packet) -> None:
        """Note its answer to a greeting."""
        self.version, self.pid, error, _ = packet.numbers
        self.complete = not error


async def reach(path: Path, command: Sequence[int]) -> Link | None:
    """Connect to the keeper that listens there, and greet it; ``None``: none does, or it had to be killed.

    :param command: as of :meth:`Link.greet`
    :raises AlreadyExists: another supervisor is, and remains, connected to it
    :raises Unavailable: it ends each connection
    :raises OSError: something is short, or it has accepted no connection for long
    """
    deadline = anyio.current_time() + _PREDECESSOR
    while True:
        try:
            return await _reached(path, command)
        except (OSError, ShimdError):  # it was about to end, or its last supervisor is and has not yet
            if anyio.current_time() > deadline:
                raise
        await anyio.sleep(0.02)


async def _reached(path: Path, command: Sequence[int]) -> Link | None:
    if (sock := connect(path)) is None:
        return None
    link = Link(sock)
    try:
        if await acquaint(link, peer_pid(sock), command):
            return link
    except BaseException:
        link.close()
        raise
    link.close()
    return None


async def acquaint(link: Link, pid: int, command: Sequence[int]) -> bool:
    """Greet a keeper. One that was stopped is woken, and killed if that does not help.

    :returns: whether it has answered; if not, it may yet live, if the kernel does not let it die
    :raises ShimdError: as of :meth:`Link.answered`
    :raises OSError: it is gone
    """
    link.greet(command)
    for number in (signal.SIGCONT, signal.SIGKILL):
        with anyio.move_on_after(_PATIENCE):
            await link.answered()
            return True
        _log.error("the keeper, pid %d, has not answered within %.0f s: it gets a %s", pid, _PATIENCE, number.name)
        _signal(pid, number)
    return False


def _signal(pid: int, number: int) -> None:
    if pid not in (0, os.getpid()):
        with suppress(OSError):
            os.kill(pid, number)


def connect(path: Path) -> socket.socket | None:
    """A connection to who listens at a path, if anybody does.

    :raises OSError: something is short; BlockingIOError: more connections wait than are let in
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        sock.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    return sock


#: What tells whose keeper it is; it does nothing with it.
_SHOWN = ("SHIMD_RUNTIME_DIR",)


def launch(path: Path, program: Path) -> tuple[socket.socket, int]:
    """Start a keeper that listens at ``path``; returns a connection and its pid. It is our child at first.

    :raises OSError: it does not start
    """
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.path.abspath(path))
        path.chmod(0o600)
        listener.listen(8)
        sock = connect(path)
        if sock is None:
            raise ConnectionRefusedError
        try:
            pid = spawn(
                program,
                [program.name],
                {name: value for name in _SHOWN if (value := os.environ.get(name)) is not None},
                [
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                    (os.POSIX_SPAWN_DUP2, 0, 1),
                    (os.POSIX_SPAWN_DUP2, 0, 2),
                    (os.POSIX_SPAWN_DUP2, listener.fileno(), LISTEN_FD),
                ],
                session=True,
            )
        except BaseException:
            sock.close()
            raise
    return sock, pid


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
