"""Workers whose fork server is gone: each is followed until it ends, and its true status is found out.

Its parent now is whoever is the nearest subreaper: this process, the keeper, or the node's init, which tells nobody.
"""

import time
from collections.abc import Callable
from contextlib import suppress

import anyio

from shimd.linux.pidfd import exit_status, is_reaped, open_process, wait_for_child, zombie_status
from shimd.supervisor.workers.fork_client import Worker

#: Wait status of a process whose real one nobody can tell any more: killed by SIGKILL, as containerd assumes too.
UNKNOWN = 9
#: What another process knows of the end of the process that had a pid since a start time: wait status, and when
#: (nanoseconds since the epoch).
ExitOf = Callable[[int, int], tuple[int, int] | None]
#: Seconds between two questions, at first and at last.
_SOON, _LATER = 0.02, 1.0
#: Seconds in which whoever has waited for it may tell us.
_PATIENCE = 2.0


def nothing_known(_pid: int, _start: int) -> None:
    return None


async def follow(worker: Worker, exit_of: ExitOf) -> None:
    """Note its exit when it has ended, unless its fork server tells of that after all."""
    if worker.followed:
        return
    worker.followed = True
    try:
        if await _has_a_descriptor(worker):
            assert worker.pidfd is not None
            await _end_of(worker.pidfd)
            worker.died_at = worker.died_at or time.time_ns()
            _note(worker, *await _outcome(worker, worker.pidfd, exit_of))
            await _bury(worker.pidfd)
        else:
            _note(worker, *await _told(worker, exit_of))
    finally:
        worker.followed = False
        worker.close_pidfd()


def _note(worker: Worker, status: int, at: int) -> None:
    if worker.status is None:
        worker.gone(status, at)
    if worker.unwanted:
        worker.close()


async def _bury(pidfd: int) -> None:
    """It may become our child only now, when its parent dies."""
    with anyio.move_on_after(_PATIENCE):
        while not is_reaped(pidfd) and wait_for_child(pidfd) is None:  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(_SOON)


async def _end_of(pidfd: int) -> None:
    while True:
        try:
            return await anyio.wait_readable(pidfd)
        except OSError:  # no memory for it now, or too much is waited for
            await anyio.sleep(_LATER)


async def _has_a_descriptor(worker: Worker) -> bool:
    """Returns whether it still lives, or may be looked at."""
    while worker.pidfd is None and worker.status is None:
        try:
            worker.pidfd = open_process(worker.pid, worker.start)
        except ProcessLookupError:
            return False
        except OSError:  # no room for it now
            await anyio.sleep(_LATER)
    return worker.pidfd is not None


async def _outcome(worker: Worker, pidfd: int, exit_of: ExitOf) -> tuple[int, int]:
    """Of a process that has ended. It is a zombie as long as its parent does not wait for it, which may be stopped."""
    at, pause = time.time_ns(), _SOON
    while worker.status is None:
        for status in (wait_for_child(pidfd), zombie_status(worker.pid, worker.start), exit_status(pidfd)):
            if status is not None:
                return status, at
        if is_reaped(pidfd):
            return await _told(worker, exit_of)
        await anyio.sleep(pause)
        pause = min(2 * pause, _LATER)
    return worker.status, worker.exited_at


async def _told(worker: Worker, exit_of: ExitOf) -> tuple[int, int]:
    """What another process tells of one that is gone."""
    known = exit_of(worker.pid, worker.start)
    with suppress(TimeoutError), anyio.fail_after(_PATIENCE):
        while known is None and worker.status is None:
            await anyio.sleep(_SOON)
            known = exit_of(worker.pid, worker.start)
    return known or (UNKNOWN, time.time_ns())
