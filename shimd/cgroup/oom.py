"""Hearing of out-of-memory kills: an eventfd in version 1 (cgroup-v1/memory.rst, 10), inotify in version 2.

Both only wake us; how many there were is read from the cgroup's own count. One file descriptor per cgroup, no thread.
"""

import ctypes
import os
from collections.abc import AsyncIterator, Callable

import anyio

from shimd.cgroup.files import flat_keyed, read_if_there, write

_IN_MODIFY = 2  # <sys/inotify.h>
_libc = ctypes.CDLL(None, use_errno=True)


def count(directory: str, version: int) -> int | None:
    """Read the number of kills so far (Linux ≥ 4.13); ``None`` without a memory controller, or when the cgroup is
    gone."""
    text = read_if_there(f"{directory}/{'memory.oom_control' if version == 1 else 'memory.events'}")
    return None if text is None else flat_keyed(text).get("oom_kill", 0)


async def kills(directory: str, version: int) -> AsyncIterator[int]:
    """Yield the number of new kills whenever there are some; end when the cgroup does."""
    if count(directory, version) is None:
        return
    fd = _eventfd(directory) if version == 1 else _inotify(directory)
    try:
        seen = 0
        while (now := count(directory, version)) is not None:
            if now > seen:
                yield now - seen
                seen = now
            else:
                await anyio.wait_readable(fd)
                os.read(fd, 4096)
                if version == 1:
                    await _settled(lambda: count(directory, 1), seen)
    finally:
        os.close(fd)


async def _settled(counted: Callable[[], int | None], seen: int) -> None:
    """Wait for the count to rise, 127 ms at most: version 1 wakes us before it kills, and also if it then kills
    nobody."""
    for attempt in range(7):
        if counted() != seen:
            return
        await anyio.sleep(0.001 * 2**attempt)


def _eventfd(directory: str) -> int:
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open(directory + "/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            write(directory + "/cgroup.event_control", f"{fd} {control}")
        finally:
            os.close(control)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _inotify(directory: str) -> int:
    path = directory + "/memory.events"
    fd: int = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0 or _libc.inotify_add_watch(fd, os.fsencode(path), _IN_MODIFY) < 0:
        number = ctypes.get_errno()
        if fd >= 0:
            os.close(fd)
        raise OSError(number, os.strerror(number), path)
    return fd
