"""The source of an entry of the cache: a file, named by its contents, and no larger than a program may be."""

import hashlib
import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import anyio

from shimd.errors import ResourceExhausted, Unavailable
from shimd.formats.digest import add_part, small_digest
from shimd.supervisor.threads import in_thread

#: Largest program, bytes, unless SHIMD_PROGRAM_SIZE says otherwise.
_DEFAULT_LIMIT = 512 << 20
#: Hashed at a time by a thread, between two looks whether anybody still waits.
_TURN = 16 << 20
#: Seconds for that: a file system that takes longer is taken for one that hangs, and holds nobody else up.
_LONGEST_TURN = 60.0
#: Larger files at a time.
_AT_ONCE = anyio.CapacityLimiter(2)
T = TypeVar("T")
Look = Callable[[str, int], object]


class Source(NamedTuple):
    fd: int
    digest: str
    """SHA-256, hexadecimal."""


async def source(name: str, fd: int, look: Look | None = None, digest: str = "") -> Source:
    """The file ``fd`` of that name, which stays the caller's.

    :param look: called with both before anything is hashed, where it may read; what it raises is raised here
    :param digest: of a file that somebody else has read just now, so that its volume does not hang
    :raises ResourceExhausted: it is too large
    :raises Unavailable: its file system does not answer
    """

    def first(own: int) -> None:
        if look is not None:
            look(name, own)
        check_size(name, os.fstat(own).st_size)

    if digest:
        first(fd)
        return Source(fd, digest)
    try:
        return Source(fd, await sha256(fd, first))
    except TimeoutError:
        raise Unavailable(f"{name}: its file system does not answer") from None


async def sha256(fd: int, look: Callable[[int], None] | None = None) -> str:
    """The hash of a whole file, whatever its offset. It can be cancelled, even where a read hangs.

    :raises TimeoutError: a read takes too long
    """

    def begin(own: int) -> tuple[int, str]:
        if look is not None:
            look(own)
        return os.fstat(own).st_size, small_digest(own)

    size, small = await _reading(fd, begin)
    if small:
        return small
    digest = hashlib.sha256()
    for offset in range(0, size, _TURN):
        async with _AT_ONCE:
            await _reading(fd, partial(_part, digest, offset, min(_TURN, size - offset)))
    return digest.hexdigest()


async def _reading(fd: int, action: Callable[[int], T]) -> T:
    """Returns what ``action`` makes of a file, in a thread that may hang.

    On a volume whose server is gone no signal wakes it. Then it is left to itself, with a descriptor of its own: it is
    no thread of the pool's, for which the process would wait when it ends.
    """
    own = [os.dup(fd)]

    def read() -> T:
        mine = own.pop()
        try:
            return action(mine)
        finally:
            os.close(mine)

    try:
        return await in_thread(read, "a read", limit=_LONGEST_TURN, cancellable=True)
    except ResourceExhausted:
        for left in own:  # no thread can be started
            os.close(left)
        raise
    except Unavailable:
        raise TimeoutError from None


def check_size(name: str, size: int) -> None:
    """:raises ResourceExhausted: a program of so many bytes is too large"""
    limit = int(os.environ.get("SHIMD_PROGRAM_SIZE") or _DEFAULT_LIMIT)
    if size > limit:
        raise ResourceExhausted(f"{name} has {size} bytes, and SHIMD_PROGRAM_SIZE allows {limit}")


def _part(digest: "hashlib._Hash", offset: int, size: int, fd: int) -> None:
    add_part(digest, fd, offset, size)
