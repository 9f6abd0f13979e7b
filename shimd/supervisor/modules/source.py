"""What an entry of the cache is made from: a file, named by its contents, and no larger than a program may be."""

import hashlib
import os
from typing import NamedTuple

import anyio
from anyio import to_thread

from shimd.errors import ResourceExhausted

#: Largest program, bytes, unless SHIMD_PROGRAM_SIZE says otherwise.
_DEFAULT_LIMIT = 512 << 20
#: Files up to this size are hashed in the event loop: a thread costs more.
_INLINE = 1 << 20
_CHUNK = 1 << 20
#: Hashed at a time by a thread, between two looks whether anybody still waits.
_TURN = 16 << 20
#: At a time, in threads that nothing else needs.
_AT_ONCE = anyio.CapacityLimiter(2)


class Source(NamedTuple):
    fd: int
    digest: str
    """SHA-256, hexadecimal."""


async def source(name: str, fd: int) -> Source:
    """The file ``fd`` of that name, which stays the caller's.

    :raises ResourceExhausted: it is too large
    """
    check_size(name, os.fstat(fd).st_size)
    return Source(fd, await sha256(fd))


async def sha256(fd: int) -> str:
    """Of a whole file, whatever its offset; can be cancelled."""
    digest, size = hashlib.sha256(), os.fstat(fd).st_size
    if size <= _INLINE:
        _update(digest, fd, 0, size + 1)
        return digest.hexdigest()
    for offset in range(0, size, _TURN):
        await to_thread.run_sync(_update, digest, fd, offset, min(_TURN, size - offset), limiter=_AT_ONCE)
    return digest.hexdigest()


def check_size(name: str, size: int) -> None:
    """:raises ResourceExhausted: a program of so many bytes is too large"""
    limit = int(os.environ.get("SHIMD_PROGRAM_SIZE") or _DEFAULT_LIMIT)
    if size > limit:
        raise ResourceExhausted(f"{name} has {size} bytes, and SHIMD_PROGRAM_SIZE allows {limit}")


def _update(digest: "hashlib._Hash", fd: int, offset: int, size: int) -> None:
    end = offset + size
    while offset < end and (chunk := os.pread(fd, min(_CHUNK, end - offset), offset)):
        digest.update(chunk)
        offset += len(chunk)
