"""The zygote's other end: a fork server's child that forks workers which need no Python (``zygote.c``).

An interpreter is a bad thing to fork: it writes to a quarter of its pages only by running, and each becomes a copy. The
zygote stops running it once everything is there that workers share. Its workers are the fork server's children.
"""

import array
import ctypes
import errno
import os
import signal
import socket
import struct
from pathlib import Path
from typing import NoReturn

from shimd.linux.namespaces import open_namespace

_LIBRARY = Path(__file__).with_name("_zygote.so")
_NEW_PID, _IN_CGROUP, _JOIN_PID = 1, 2, 4
_STDIO = 4
"""With ``control``."""


def available() -> bool:
    """Whether the part in C was built, and is wanted (``SHIMD_ZYGOTE``)."""
    return _LIBRARY.is_file() and os.environ.get("SHIMD_ZYGOTE", "yes") != "no"


class Zygote:
    """:param engine: the address of its ``struct engine`` (``engine.h``)"""

    def __init__(self, engine: int) -> None:
        self._engine = engine
        self._library = ctypes.CDLL(str(_LIBRARY))
        self._socket = self._start()

    def spawn(self, fds: list[int], steps: int, block: int, pidns: str | None, cgroup: str | None) -> int:
        """Fork a worker; returns its pid.

        :param fds: its descriptors from 0 on: streams, control and world
        :param block: the file of what the engine's part in C is told
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
            return self._ask(struct.pack("=2Q", len(fds) - _STDIO, flags), [*fds, steps, block, *opened])
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
            answer = self._socket.recv(8)
        except ConnectionError:
            answer = b""
        if not answer:
            self._replace()
            raise OSError(errno.ECHILD, "the zygote died")
        (pid,) = struct.unpack("=q", answer)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return int(pid)

    def _replace(self) -> None:
        self._socket.close()
        self._socket = self._start()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        if os.fork() == 0:
            self._run(theirs.fileno())
        theirs.close()
        return ours

    def _run(self, sock: int) -> NoReturn:
        try:
            os.dup2(sock, 3)
            os.closerange(4, 1 << 30)
            self._library.shimd_zygote(3, ctypes.c_void_p(self._engine))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError
