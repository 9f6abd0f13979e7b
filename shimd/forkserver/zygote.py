"""The zygote's other end: a fork server's child that forks workers which need no Python (``zygote.c``).

An interpreter is a bad thing to fork: thousands of pages, of which each is in every fork's page table and a quarter
become copies only by running it. The zygote's workers are the fork server's children.
"""

import array
import errno
import os
import resource
import signal
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

from shimd.linux.limits import restore_descriptors
from shimd.linux.memory_file import sealed_copy
from shimd.linux.namespaces import open_namespace
from shimd.linux.spawn import spawn
from shimd.protocol.constants import ZYGOTE_PING, Birth
from shimd.zygote import PROGRAM

_THEIR_SOCKET = 3
#: Seconds for an answer, and for the first one: it loads the engine before. It is killed then, and replaced. Both
#: together are less than the fork server itself has (``supervisor/workers/watchdog.py``).
_PATIENCE, _START = 4.0, 8.0


class _Process(NamedTuple):
    """One that runs."""

    socket: socket.socket
    pidfd: int

    def end(self) -> None:
        """Kill it; the fork server waits for it as for any child that it does not follow."""
        self.socket.close()
        with suppress(OSError):  # it has ended, and was waited for
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.close(self.pidfd)


class Zygote:
    """:param engine: the library with the engine's part in C, and its arguments (``RunsWithoutPython``)

    :raises OSError: it does not start
    """

    def __init__(self, engine: list[str]) -> None:
        # What runs is a copy: an upgrade of the file is not for this fork server, and no worker's /proc/PID/exe is a
        # file of the node's (CVE-2019-5736).
        self._program = sealed_copy(PROGRAM, "shimd-zygote")
        self._arguments = ["shimd-zygote", *engine]
        self._process: _Process | None = self._start()
        self._owed = 0
        """Answers to :meth:`check` that have not been read."""

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
                flags |= Birth.IN_CGROUP
                opened.append(os.open(cgroup, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            if pidns == "new":
                flags |= Birth.NEW_PID
            elif pidns is not None:
                flags |= Birth.JOIN_PID
                opened.append(open_namespace(pidns))
            return self._ask(struct.pack("=Q", flags), [*fds, *opened])
        finally:
            for fd in opened:
                os.close(fd)

    def check(self) -> None:
        """End it if it has not answered since the last time, and ask once more. It never waits."""
        if self._process is None:
            return
        with suppress(OSError):
            while self._owed:
                _read(self._process.socket, 0.0)
                self._owed -= 1
        if self._owed:
            self._bury()
            return
        with suppress(OSError):  # dead: the next that is spawned sees it, and has it replaced
            self._process.socket.send(struct.pack("=Q", ZYGOTE_PING), socket.MSG_NOSIGNAL)
            self._owed += 1

    def close(self) -> None:
        """Let it end."""
        self._bury()
        os.close(self._program)

    def _ask(self, request: bytes, fds: list[int]) -> int:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            self._living().sendmsg([request], ancillary, socket.MSG_NOSIGNAL)
        except (ConnectionError, TimeoutError):  # it was killed, or stands still, and is replaced
            self._bury()
            self._living().sendmsg([request], ancillary, socket.MSG_NOSIGNAL)
        # From here on it may have forked: to ask again could be to have the app run twice.
        try:
            while self._owed:
                _read(self._living(), _PATIENCE)
                self._owed -= 1
            return _answer(self._living(), _PATIENCE)
        except ChildProcessError:
            self._bury()
            raise

    def _living(self) -> socket.socket:
        if self._process is None:
            self._process = self._start()
        self._process.socket.settimeout(_PATIENCE)
        return self._process.socket

    def _bury(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process, self._owed = None, 0

    def _start(self) -> _Process:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            with theirs:
                process = self._execute(ours, theirs.fileno())
        except OSError:
            ours.close()
            raise
        try:
            _answer(ours, _START)
        except OSError as error:
            process.end()
            raise ChildProcessError(errno.ECHILD, f"the zygote does not start: {error.strerror}") from error
        return process

    def _execute(self, ours: socket.socket, theirs: int) -> _Process:
        """With the limit of descriptors that its workers are to have.

        :raises OSError: it does not start
        """
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        restore_descriptors()
        try:
            actions = [(os.POSIX_SPAWN_DUP2, theirs, _THEIR_SOCKET)]
            program, blocked = f"/proc/self/fd/{self._program}", signal.pthread_sigmask(signal.SIG_BLOCK, ())
            pid = spawn(program, self._arguments, os.environ, actions, blocked=blocked)
        except OSError as error:
            raise ChildProcessError(errno.ECHILD, f"the zygote does not start: {error.strerror}") from error
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        try:
            return _Process(ours, os.pidfd_open(pid))
        except OSError:
            os.kill(pid, signal.SIGKILL)  # nobody has waited for it yet
            raise


def _answer(sock: socket.socket, patience: float) -> int:
    """:raises OSError: as of clone3(2), or ECHILD: it has ended, or stands still"""
    pid = _read(sock, patience)
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid))
    return pid


def _read(sock: socket.socket, patience: float) -> int:
    """:raises ChildProcessError: it has ended, or has not answered in time"""
    sock.settimeout(patience)
    try:
        answer = _received(sock)
    except TimeoutError:
        raise ChildProcessError(errno.ECHILD, f"the zygote has not answered within {patience:g} s") from None
    except BlockingIOError:
        raise ChildProcessError(errno.ECHILD, "the zygote has not answered yet") from None
    except ConnectionError:
        answer = b""
    if not answer:
        raise ChildProcessError(errno.ECHILD, "the zygote died")
    return int(struct.unpack("=q", answer)[0])


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(8)
    except ConnectionResetError:  # it has gone and not read all; what it had answered comes after that
        return sock.recv(8)
