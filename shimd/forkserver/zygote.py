"""The zygote's other end: a fork server's child that forks workers which need no Python (``zygote.c``).

An interpreter is a bad thing to fork: thousands of pages, of which each is in every fork's page table and a quarter
become copies only by running it. The zygote's workers are the fork server's children.
"""

import array
import errno
import os
import socket
import struct

from shimd.linux.memory_file import sealed_copy
from shimd.linux.namespaces import open_namespace
from shimd.zygote import PROGRAM

_NEW_PID, _IN_CGROUP, _JOIN_PID = 1, 2, 4
_THEIR_SOCKET = 3


class Zygote:
    """:param engine: the library with the engine's part in C, and its arguments (``RunsWithoutPython``)

    :raises OSError: it does not start
    """

    def __init__(self, engine: list[str]) -> None:
        # What runs is a copy: an upgrade of the file is not for this fork server, and no worker's /proc/PID/exe is a
        # file of the node's (CVE-2019-5736).
        self._program = sealed_copy(PROGRAM, "shimd-zygote")
        self._arguments = ["shimd-zygote", *engine]
        self._socket: socket.socket | None = self._start()

    def spawn(self, fds: list[int], pidns: str | None, cgroup: str | None) -> int:
        """Fork a worker, which waits to be told what to run; returns its pid.

        :param fds: its descriptors from 0 on: streams and control
        :raises OSError: ENOSYS: this kernel or C library does not let it. Others: as of clone3(2), setns(2); ECHILD:
            there is no zygote now, but may be at the next call
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

    def close(self) -> None:
        """Let it end."""
        self._bury()
        os.close(self._program)

    def _ask(self, request: bytes, fds: list[int]) -> int:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            self._living().sendmsg([request], ancillary)
        except ConnectionError:  # it was killed, and is replaced
            self._bury()
            self._living().sendmsg([request], ancillary)
        # From here on it may have forked: to ask again could be to have the app run twice.
        try:
            return _answer(self._living())
        except ChildProcessError:
            self._bury()
            raise

    def _living(self) -> socket.socket:
        if self._socket is None:
            self._socket = self._start()
        return self._socket

    def _bury(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            with theirs:
                actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), _THEIR_SOCKET)]
                os.posix_spawn(f"/proc/self/fd/{self._program}", self._arguments, os.environ, file_actions=actions)
            _answer(ours)
        except OSError as error:
            ours.close()
            raise ChildProcessError(errno.ECHILD, f"the zygote does not start: {error.strerror}") from error
        return ours


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
