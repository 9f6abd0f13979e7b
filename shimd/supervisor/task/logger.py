"""``binary://`` log URIs: a logging program reads the app's output.

containerd's contract (runtime/v2 README, "Logging"): the program gets stdout as fd 3, stderr as fd 4, and closes fd 5
once it is ready; the URI's query becomes its arguments, name then value; ``CONTAINER_ID`` and ``CONTAINER_NAMESPACE``
are set.
"""

import fcntl
import os
import signal
from contextlib import suppress
from urllib.parse import parse_qsl, urlsplit

import anyio

from shimd.errors import InvalidArgument, reason
from shimd.linux.start_time import start_time

#: Seconds that a logging program has to become ready, and to end once its input has.
PATIENCE = 10
#: Seconds between a process's last closed file and its being waitable, with a margin.
_MOMENT = 0.02


class Logger:
    """A running logging program; ``stdout`` and ``stderr`` are the write ends, owned by the caller."""

    def __init__(self, pid: int, stdout: int, stderr: int, ready: int) -> None:
        self._pidfd = os.pidfd_open(pid)
        self._pid, self._start = pid, start_time(pid)
        self.stdout, self.stderr = stdout, stderr
        self._ready = ready

    @classmethod
    def found(cls, pid: int, start: int) -> "Logger | None":
        """One that an earlier supervisor has started; ``None``: it has ended."""
        try:
            self = cls(pid, -1, -1, -1)
        except OSError:
            return None
        if self.identity != (pid, start):
            os.close(self._pidfd)
            return None
        return self

    @property
    def identity(self) -> tuple[int, int]:
        """Its pid, and its start time in clock ticks since boot."""
        return self._pid, self._start

    @classmethod
    async def start(cls, uri: str, container: str, namespace: str) -> "Logger":
        """:raises InvalidArgument: the program does not start or does not become ready"""
        (out_r, out_w), (err_r, err_w), (ready_r, ready_w) = os.pipe(), os.pipe(), os.pipe()
        try:
            pid = _spawn(uri, container, namespace, (out_r, err_r, ready_w))
        except OSError as error:
            for fd in (out_w, err_w, ready_r):
                os.close(fd)
            raise InvalidArgument(f"log program {urlsplit(uri).path}: {reason(error)}") from error
        finally:
            for fd in (out_r, err_r, ready_w):
                os.close(fd)
        self = cls(pid, out_w, err_w, ready_r)
        try:
            await self._wait_ready(uri)
        except BaseException:
            os.close(out_w)
            os.close(err_w)
            with anyio.CancelScope(shield=True):
                await self.close(patience=0)
            raise
        finally:
            os.close(ready_r)
        return self

    async def _wait_ready(self, uri: str) -> None:
        with anyio.move_on_after(PATIENCE):
            await anyio.wait_readable(self._ready)  # its end: fd 5 was closed, by the program or by its death
            if not await self._has_died():
                return
            raise InvalidArgument(f"log program {urlsplit(uri).path} ended before it was ready")
        raise InvalidArgument(f"log program {urlsplit(uri).path} was not ready after {PATIENCE} s")

    async def close(self, patience: float = PATIENCE) -> None:
        """Wait for its end (it reads EOF once the app has gone), then insist."""
        with anyio.move_on_after(patience):
            await anyio.wait_readable(self._pidfd)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._reap()

    async def _has_died(self) -> bool:
        """Returns whether it was its death that closed fd 5: the kernel tells of that a moment after closing the
        files."""
        with anyio.move_on_after(_MOMENT):
            await anyio.wait_readable(self._pidfd)
            return True
        return False

    def _reap(self) -> None:
        with suppress(ChildProcessError):  # an earlier supervisor's child
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)


def _spawn(uri: str, container: str, namespace: str, fds: tuple[int, int, int]) -> int:
    program, query = urlsplit(uri).path, parse_qsl(urlsplit(uri).query, keep_blank_values=True)
    arguments = [program, *(word for pair in query for word in pair if word)]
    # Clear of 3…5 first: a dup2 there must not overwrite one still to be passed.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in fds]
    try:
        return os.posix_spawn(
            program,
            arguments,
            {**os.environ, "CONTAINER_ID": container, "CONTAINER_NAMESPACE": namespace},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                *((os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(high, 3)),
            ],
        )
    finally:
        for fd in high:
            os.close(fd)
