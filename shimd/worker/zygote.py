"""The zygote's other end: a fork server's child that forks workers which need no Python (``zygote.c``).

An interpreter is a bad thing to fork: thousands of pages, of which each is in every fork's page table and a quarter
become copies only by running it. The zygote's workers are the fork server's children.
"""

import array
import errno
import os
import socket
import struct
from functools import cache
from pathlib import Path

from shimd.linux.namespaces import open_namespace

_PROGRAM = Path(__file__).with_name("_zygote")
_NEW_PID, _IN_CGROUP, _JOIN_PID = 1, 2, 4
_THEIR_SOCKET = 3


@cache
def available() -> bool:
    """Whether the part in C was built, and is wanted (``SHIMD_ZYGOTE``)."""
    return _PROGRAM.is_file() and os.environ.get("SHIMD_ZYGOTE", "yes") != "no"


class Zygote:
    """:param engine: the library with the engine's part in C, and its arguments (``RunsInC``)

    :raises OSError: it does not start
    """

    def __init__(self, engine: list[str]) -> None:
        self._command = [str(_PROGRAM), *engine]
        self._socket = self._start()

    def spawn(self, fds: list[int], pidns: str | None, cgroup: str | None) -> int:
        """Fork a worker, which waits to be told what to run; returns its pid.

        :param fds: its descriptors from 0 on: streams and control
        :raises OSError: as of clone3(2)
        """
        opened: list[int] = []
        flags = 0
        try:
            if cgroup is not None:
                flags |= _IN_CGROUP
                opened.append(os.open(cgroup, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            if pidns == "new":
                flags |= _NEW_PID
            elif pidns is not None:
                flags |= _JOIN_PID
                opened.append(open_namespace(pidns))
            return self._ask(struct.pack("=Q", flags), [*fds, *opened])
        finally:
            for fd in opened:
                os.close(fd)

    def _ask(self, request: bytes, fds: list[int]) -> int:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            self._socket.sendmsg([request], ancillary)
        except ConnectionError:  # it was killed, and is replaced
            self._replace()
            self._socket.sendmsg([request], ancillary)
        # From here on it may have forked: to ask again could be to have the app run twice.
        try:
            return _answer(self._socket)
        except ChildProcessError:
            self._replace()
            raise

    def _replace(self) -> None:
        self._socket.close()
        self._socket = self._start()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        with theirs:
            os.posix_spawn(self._command[0], self._command, os.environ, file_actions=[_as(theirs, _THEIR_SOCKET)])
        _answer(ours)
        return ours


def _as(sock: socket.socket, number: int) -> tuple[int, int, int]:
    return os.POSIX_SPAWN_DUP2, sock.fileno(), number


def _answer(sock: socket.socket) -> int:
    """:raises OSError: as of clone3(2), or ECHILD: it has ended"""
    try:
        answer = sock.recv(8)
    except ConnectionError:
        answer = b""
    if not answer:
        raise ChildProcessError(errno.ECHILD, "the zygote died")
    (pid,) = struct.unpack("=q", answer)
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid))
    return int(pid)
