"""The SHA-256 of a file: of a small one at once, of a large one part by part."""

import hashlib
import os

#: Bytes up to which a file counts as small.
SMALL = 1 << 20
_CHUNK = 1 << 20


def small_digest(fd: int) -> str:
    """Hash a whole file, whatever its offset; returns hexadecimal digits, or nothing if the file is not small."""
    size = os.fstat(fd).st_size
    if size > SMALL:
        return ""
    digest = hashlib.sha256()
    add_part(digest, fd, 0, size + 1)
    return digest.hexdigest()


def add_part(digest: "hashlib._Hash", fd: int, offset: int, size: int) -> None:
    """Hash ``size`` bytes of a file from ``offset`` on, or as many as there are."""
    end = offset + size
    while offset < end and (chunk := os.pread(fd, min(_CHUNK, end - offset), offset)):
        digest.update(chunk)
        offset += len(chunk)
