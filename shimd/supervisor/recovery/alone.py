"""Children of our own, where there is no keeper."""

import fcntl
import os
import time
from collections.abc import Mapping, Sequence

import anyio

from shimd.linux.pidfd import wait_for_child
from shimd.linux.spawn import spawn as start
from shimd.protocol.constants import HIGH_FD

#: Seconds until what there was no descriptor for is tried again.
_PAUSE = 1.0


def spawn(argv: Sequence[str], env: Mapping[str, str], fds: Mapping[int, int]) -> int:
    """Start a program in a session of its own, as the keeper does; returns its pid.

    :param fds: its descriptors, by their numbers there
    :raises OSError: as of posix_spawn(3)
    """
    moved: dict[int, int] = {}
    try:
        for number, fd in fds.items():
            moved[number] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
        nothing = [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_RDWR, 0) for n in range(3) if n not in moved]
        given = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in moved.items()]
        return start(argv[0], argv, env, [*nothing, *given], session=True)
    finally:
        for fd in moved.values():
            os.close(fd)


async def ended(pid: int) -> tuple[int, int] | None:
    """Wait for the end of a child: its wait status, and nanoseconds since the epoch; ``None``: somebody else has."""
    if (pidfd := await _opened(pid)) is None:
        return None
    try:
        await anyio.wait_readable(pidfd)
        at, status = time.time_ns(), wait_for_child(pidfd)
        return None if status is None else (status, at)
    finally:
        os.close(pidfd)


async def _opened(pid: int) -> int | None:
    while True:
        try:
            return os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        except OSError:  # there is no room
            await anyio.sleep(_PAUSE)
