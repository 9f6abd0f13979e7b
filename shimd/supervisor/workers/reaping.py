"""Waiting for processes, each by a descriptor of its own: what others wait for is never taken from them."""

import os
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import anyio

from shimd.linux.pidfd import is_zombie, wait_for_child
from shimd.linux.spawn import started

#: Seconds between two looks at children.
_EVERY = 60.0


async def reap(pidfd: int) -> None:
    """Wait until a process has ended, and for it if it is our child; closes the descriptor. It may take its time, if a
    file system holds it."""
    try:
        await anyio.wait_readable(pidfd)
        wait_for_child(pidfd)
    finally:
        os.close(pidfd)


def children_in_session(session: int, besides: Collection[int]) -> list[int]:
    """Descriptors of our children in somebody's session: what a fork server that has died left to us, its subreaper.
    None of those that we started ourselves is in it."""
    found = []
    for pid in _children() - set(besides):
        with suppress(OSError):  # it has gone, or there is no room
            if os.getsid(pid) == session:
                found.append(os.pidfd_open(pid))
    return found


def _children() -> set[int]:
    lists = []
    with suppress(OSError):  # no descriptor to look with
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError):  # a thread that has ended
                lists.append(Path(f"/proc/self/task/{thread}/children").read_text())
    return {int(pid) for pid in " ".join(lists).split()}


def kill(pidfd: int) -> None:
    """Kill a process, if it still lives."""
    with suppress(OSError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


async def bury_strays() -> None:
    """Wait, for ever, for children that nobody here has started: what a log program or a hook has left running becomes
    ours, a subreaper's, and is nobody's to wait for when it ends.

    Each by its number, and only one that has been a zombie at two looks: whoever wants to wait for it has done so.
    """
    before: set[int] = set()
    while True:
        await anyio.sleep(_EVERY)
        started.difference_update([pid for pid in started if not os.path.exists(f"/proc/{pid}")])
        zombies = {pid for pid in _children() - started if is_zombie(pid)}
        for pid in zombies & before:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 — it does not wait
        before = zombies
