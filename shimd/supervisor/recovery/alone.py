"""Children of our own, where there is no keeper."""

import fcntl
import os
import time
from collections.abc import Mapping, Sequence

import anyio

from shimd.linux.spawn import spawn as start
from shimd.protocol.constants import HIGH_FD


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


async def ended(pidfd: int) -> tuple[int, int] | None:
    """Wait for the end of a child: its wait status, and nanoseconds since the epoch; ``None``: it was none of ours.

    :param pidfd: it is closed
    """
    try:
        await anyio.wait_readable(pidfd)
        at = time.time_ns()
        info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 — it does not wait
    except ChildProcessError:
        return None
    finally:
        os.close(pidfd)
    if info is None:
        return None
    core = 0x80 if info.si_code == os.CLD_DUMPED else 0
    return info.si_status << 8 if info.si_code == os.CLD_EXITED else info.si_status | core, at


def start_time(pid: int) -> int:
    """Field 22 of ``/proc/PID/stat`` (proc_pid_stat(5)); 0: it cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except OSError:
        return 0
