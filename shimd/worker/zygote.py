"""The zygote's other end: a fork server's child that forks workers which need no Python (``zygote.c``).

An interpreter is a bad thing to fork: it writes to a quarter of its pages only by running, and each becomes a copy. The
zygote stops running it once everything is there that workers share. Its workers are the fork server's children.
"""

import array
import ctypes
import os
import signal
import socket
import struct
from pathlib import Path
from typing import NoReturn

from shimd.linux.namespaces import open_namespace
from shimd.worker.messages import memory_file

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
        self._socket: socket.socket | None = None
        self.pid = 0

    def spawn(self, fds: list[int], steps: int, block: bytes, pidns: str | None, cgroup: str | None) -> int:
        """Fork a worker; returns its pid.

        :param fds: its descriptors from 0 on: streams, control and world
        :raises OSError: as of clone3(2)
        """
        opened = [memory_file("shimd-program", block)]
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
            return self._ask(struct.pack("=2Q", len(fds) - _STDIO, flags), [*fds, steps, *opened])
        finally:
            for fd in opened:
                os.close(fd)

    def _ask(self, request: bytes, fds: list[int]) -> int:
        for _ in range(2):  # one that was killed is replaced
            zygote = self._socket or self._start()
            try:
                zygote.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
                answer = zygote.recv(8)
            except OSError:
                answer = b""
            if answer:
                (pid,) = struct.unpack("=q", answer)
                if pid < 0:
                    raise OSError(-pid, os.strerror(-pid))
                return int(pid)
            zygote.close()
            self._socket = None
        raise OSError(0, "the zygote died")

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            self._run(theirs.fileno())
        theirs.close()
        self._socket = ours
        return ours

    def _run(self, sock: int) -> NoReturn:
        try:
            os.dup2(sock, 3)
            os.closerange(4, 1 << 30)
            self._library.shimd_zygote(3, ctypes.c_void_p(self._engine))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError
