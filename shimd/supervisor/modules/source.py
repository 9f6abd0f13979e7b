"""What an entry of the cache is made from: a file, named by its contents, and no larger than a program may be."""

import hashlib
import os
from functools import partial
from typing import NamedTuple

import anyio
from anyio import to_thread

from shimd.errors import ResourceExhausted, Unavailable

#: Largest program, bytes, unless SHIMD_PROGRAM_SIZE says otherwise.
_DEFAULT_LIMIT = 512 << 20
#: Files up to this size are hashed in the event loop: a thread costs more.
_INLINE = 1 << 20
_CHUNK = 1 << 20
#: Hashed at a time by a thread, between two looks whether anybody still waits.
_TURN = 16 << 20
#: Seconds for that: a file system that takes longer is taken for one that hangs, and holds nobody else up.
_LONGEST_TURN = 60.0
#: At a time, in threads that nothing else needs.
_AT_ONCE = anyio.CapacityLimiter(2)


class Source(NamedTuple):
    fd: int
    digest: str
    """SHA-256, hexadecimal."""


async def source(name: str, fd: int) -> Source:
    """The file ``fd`` of that name, which stays the caller's.

    :raises ResourceExhausted: it is too large
    :raises Unavailable: its file system does not answer
    """
    check_size(name, os.fstat(fd).st_size)
    try:
        return Source(fd, await sha256(fd))
    except TimeoutError:
        raise Unavailable(f"{name}: its file system does not answer") from None


async def sha256(fd: int) -> str:
    """The hash of a whole file, whatever its offset. It can be cancelled, even where a read hangs.

    :raises TimeoutError: a read takes too long
    """
    digest, size = hashlib.sha256(), os.fstat(fd).st_size
    if size <= _INLINE:
        _update(digest, fd, 0, size + 1)
        return digest.hexdigest()
    for offset in range(0, size, _TURN):
        part = partial(_update_and_close, digest, os.dup(fd), offset, min(_TURN, size - offset))
        with anyio.fail_after(_LONGEST_TURN):
            await to_thread.run_sync(part, limiter=_AT_ONCE, abandon_on_cancel=True)
    return digest.hexdigest()


def check_size(name: str, size: int) -> None:
    """:raises ResourceExhausted: a program of so many bytes is too large"""
    limit = int(os.environ.get("SHIMD_PROGRAM_SIZE") or _DEFAULT_LIMIT)
    if size > limit:
        raise ResourceExhausted(f"{name} has {size} bytes, and SHIMD_PROGRAM_SIZE allows {limit}")


def _update_and_close(digest: "hashlib._Hash", fd: int, offset: int, size: int) -> None:
    """In a thread that may be left to itself: what it reads is its own."""
    try:
        _update(digest, fd, offset, size)
    finally:
        os.close(fd)


def _update(digest: "hashlib._Hash", fd: int, offset: int, size: int) -> None:
    end = offset + size
    while offset < end and (chunk := os.pread(fd, min(_CHUNK, end - offset), offset)):
        digest.update(chunk)
        offset += len(chunk)
