"""A file system with one file, whose reads are never answered: FUSE, whose server does not do its work.

What the kernel asks is in ``linux/fuse.h`` (fuse(4)).
"""

import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from threading import Thread

from shimd.linux import libc

#: Of a request: length, operation, unique number, node; of an answer: length, error, that number.
_REQUEST, _ANSWER = struct.Struct("=IIQQ"), struct.Struct("=IiQ")
_ROOT, _LARGEST = 1, 1 << 17
#: umount2(2)
_FORCE = 1
NAME = "app.wasm"


class Operation(IntEnum):
    LOOKUP = 1
    GETATTR = 3
    OPEN = 14
    STATFS = 17
    RELEASE = 18
    INIT = 26


@contextmanager
def hung_file(directory: Path, size: int) -> Iterator[Path]:
    """A file of that size, mounted at ``directory``; when the context ends, reads of it fail.

    It can be opened once, after which the server does not listen any more: what it has not taken up can be killed, as
    with a hard mount of NFS.
    """
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    libc.mount("hung", str(directory), "fuse", libc.MS_NOSUID | libc.MS_NODEV, options)
    server = Thread(target=_serve, args=(device, size), daemon=True)
    server.start()
    try:
        os.close(os.open(directory / NAME, os.O_RDONLY))  # the kernel learns that it need not tell of what is closed
        yield directory / NAME
    finally:
        libc.umount(str(directory), libc.MNT_DETACH | _FORCE)  # the kernel gives up what is not answered
        server.join(30)
        os.close(device)


def _serve(device: int, size: int) -> None:
    opened = 0
    with suppress(OSError):  # ENODEV: it is mounted no more
        while opened < 2:  # by ourselves; by the test
            request = os.read(device, _LARGEST + 4096)
            opened += _answer(device, request, size)


def _answer(device: int, request: bytes, size: int) -> bool:
    """Returns whether the file was opened."""
    _length, operation, unique, node = _REQUEST.unpack_from(request)
    answer, error = b"", 0
    match operation:
        case Operation.INIT:
            answer = struct.pack("=IIIIHHI", 7, 23, 0, 0, 0, 0, _LARGEST)
        case Operation.LOOKUP:
            answer = struct.pack("=QQQQII", 2, 0, 3600, 3600, 0, 0) + _attributes(2, size)
        case Operation.GETATTR:
            answer = struct.pack("=QII", 3600, 0, 0) + _attributes(node, size)
        case Operation.OPEN:
            answer = bytes(16)
        case Operation.STATFS:
            answer = bytes(80)
        case Operation.RELEASE:
            pass
        case _:
            error = -errno.ENOSYS
    os.write(device, _ANSWER.pack(_ANSWER.size + len(answer), error, unique) + answer)
    return bool(operation == Operation.OPEN)


def _attributes(node: int, size: int) -> bytes:
    kind = stat.S_IFDIR | 0o755 if node == _ROOT else stat.S_IFREG | 0o644
    return struct.pack("=QQQQQQIIIIIIIIII", node, size, 0, 0, 0, 0, 0, 0, 0, kind, 1, 0, 0, 0, 4096, 0)
