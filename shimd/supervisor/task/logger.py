"""``binary://`` log URIs: a logging program reads the app's output.

containerd's contract (runtime/v2 README, "Logging"): the program gets stdout as fd 3, stderr as fd 4, and closes fd 5
once it is ready; the URI's query becomes its arguments, name then value; ``CONTAINER_ID`` and ``CONTAINER_NAMESPACE``
are set.
"""

import fcntl
import os
from contextlib import ExitStack
from urllib.parse import parse_qsl, urlsplit

import anyio

from shimd.errors import InvalidArgument, reason
from shimd.linux.pidfd import start_time
from shimd.linux.spawn import spawn
from shimd.supervisor import children

#: Seconds that a logging program has to become ready, and to end once its input has.
PATIENCE = 10
#: Seconds between a process's last closed file and its being waitable, with a margin.
_MOMENT = 0.02


class Logger:
    """A running logging program; ``stdout`` and ``stderr`` are the write ends, owned by the caller."""

    def __init__(self, pid: int, stdout: int, stderr: int, start: int) -> None:
        self.identity = (pid, start)
        """Its pid, and its start time in clock ticks since boot."""
        self._is_child, self._closed = True, False
        self.stdout, self.stderr = stdout, stderr

    @classmethod
    def found(cls, pid: int, start: int) -> "Logger":
        """One that an earlier supervisor has started."""
        self = cls(pid, -1, -1, start)
        self._is_child = False
        return self

    @classmethod
    async def start(cls, uri: str, container: str, namespace: str) -> "Logger":
        """:raises InvalidArgument: the program does not start or does not become ready"""
        with ExitStack() as ours, ExitStack() as theirs:
            pipes = [_pipe(theirs, ours), _pipe(theirs, ours), _pipe(ours, theirs)]
            (out_r, out_w), (err_r, err_w), (ready_r, ready_w) = pipes
            try:
                pid = _spawn(uri, container, namespace, (out_r, err_r, ready_w))
            except OSError as error:
                raise InvalidArgument(f"log program {urlsplit(uri).path}: {reason(error)}") from error
            theirs.close()
            await _wait_ready(uri, pid, ready_r)
            os.close(ready_r)
            ours.pop_all()
        return cls(pid, out_w, err_w, _start_time(pid))

    async def close(self) -> None:
        """Wait for its end (it reads EOF once the app has gone), then insist."""
        closed, self._closed = self._closed, True
        if closed:
            return
        if self._is_child:
            await children.end(self.identity[0], patience=PATIENCE)
        else:
            await children.end_other(*self.identity, patience=PATIENCE)


def _start_time(pid: int) -> int:
    """0: it has ended, or there is no descriptor left to read it with; then no later supervisor will wait for it."""
    try:
        return start_time(pid)
    except OSError:
        return 0


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """The two ends, owned by one each."""
    ends = os.pipe()
    for fd, owner in zip(ends, (reader, writer), strict=True):
        owner.callback(os.close, fd)
    return ends


async def _wait_ready(uri: str, pid: int, ready: int) -> None:
    """:raises InvalidArgument: it does not become ready; it has ended"""
    try:
        with anyio.fail_after(PATIENCE):
            await anyio.wait_readable(ready)  # its end: fd 5 was closed, by the program or by its death
    except TimeoutError:
        await children.end(pid)
        raise InvalidArgument(f"log program {urlsplit(uri).path} was not ready after {PATIENCE} s") from None
    except BaseException:
        await children.end(pid)
        raise
    if await children.has_ended(pid, _MOMENT):
        raise InvalidArgument(f"log program {urlsplit(uri).path} ended before it was ready")


def _spawn(uri: str, container: str, namespace: str, fds: tuple[int, int, int]) -> int:
    program, query = urlsplit(uri).path, parse_qsl(urlsplit(uri).query, keep_blank_values=True)
    arguments = [program, *(word for pair in query for word in pair if word)]
    # Clear of 3…5 first: a dup2 there must not overwrite one still to be passed.
    with ExitStack() as stack:
        high = []
        for fd in fds:
            high.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64))
            stack.callback(os.close, high[-1])
        return spawn(
            program,
            arguments,
            {**os.environ, "CONTAINER_ID": container, "CONTAINER_NAMESPACE": namespace},
            [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                *((os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(high, 3)),
            ],
        )
