"""Children of the daemon's that are programs of others: they may hang, and cannot be made to end at once."""

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Thread

import anyio

from shimd.errors import Unavailable
from shimd.linux.pidfd import open_process
from shimd.linux.spawn import spawn

#: Seconds between two looks at a child, where no descriptor is left to wait for it by.
_LOOK = 0.1
#: Seconds for the end of one that was killed.
_DYING = 2.0


async def ended(pid: int) -> int:
    """Wait for a child's end; returns its exit code, or the negative number of a signal. It is no zombie afterwards."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        while (code := _look(pid)) is None:  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(_LOOK)
        return code
    try:
        while (code := _look(pid)) is None:
            await anyio.wait_readable(pidfd)
        return code
    finally:
        os.close(pidfd)


def _look(pid: int) -> int | None:
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # somebody else was told
        return -signal.SIGKILL
    return os.waitstatus_to_exitcode(status) if done else None


async def has_ended(pid: int, patience: float) -> bool:
    """Returns whether a child ends within so many seconds; then its number is nobody's any more."""
    with anyio.move_on_after(patience):
        await ended(pid)
        return True
    return False


async def end(pid: int, *, patience: float = 0, group: bool = False) -> None:
    """Wait for a child's end, then kill it; whoever is cancelled does not wait. One that the kernel does not let die is
    left to a thread.

    :param group: whether all of the group that it leads are killed
    """
    gone = False
    try:
        gone = bool(patience) and await has_ended(pid, patience)
    finally:
        if not gone:
            await _kill(pid, group)


async def end_other(pid: int, start: int, *, patience: float) -> None:
    """The same for a child of an earlier daemon's, of that start time: its new parent hears of its end."""
    try:
        pidfd = open_process(pid, start)
    except OSError:  # it has ended, or there is no descriptor left to wait with
        return
    try:
        with anyio.move_on_after(patience):
            await anyio.wait_readable(pidfd)
            return
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:  # it has just ended, or there is no memory to wait with
        pass
    finally:
        os.close(pidfd)


async def _kill(pid: int, group: bool) -> None:
    with suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(pid, signal.SIGKILL)
    with anyio.CancelScope(shield=True):
        if await has_ended(pid, _DYING):
            return
    with suppress(RuntimeError):  # no thread can be started: it stays a zombie
        Thread(target=_reap, args=(pid,), name=f"shimd: the end of {pid}", daemon=True).start()


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


async def run(command: Sequence[str], environment: Mapping[str, str], limit: float) -> int:
    """Run a program, whose output nobody reads; returns its exit code, or the negative number of a signal.

    :raises Unavailable: it has not ended within so many seconds, and is killed with its children
    :raises OSError: it cannot be started
    """
    pid = _spawn(command, environment)
    try:
        with anyio.fail_after(limit):
            return await ended(pid)
    except TimeoutError:
        await end(pid, group=True)
        raise Unavailable(f"{' '.join(command)} has not ended within {limit:g} s, and was killed") from None
    except BaseException:
        await end(pid, group=True)
        raise


def _spawn(command: Sequence[str], environment: Mapping[str, str]) -> int:
    null = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
    ]
    return spawn(command[0], command, environment, null, session=True)
