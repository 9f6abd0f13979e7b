"""Numbers and layouts of WASI preview 1 (typenames.witx): little-endian, pointers of 32 bits."""

import errno
import struct
from collections.abc import Iterator

#: The first descriptor after the standard streams.
FIRST = 3
SUCCESS, BADF, FAULT, INVAL, IO, NOTDIR, NOTSUP, SPIPE = 0, 8, 21, 28, 29, 54, 58, 70
#: The host's error numbers that sockets give, in WASI's.
_ERRNO = {
    errno.EACCES: 2,
    errno.EAGAIN: 6,
    errno.EBADF: BADF,
    errno.ECONNABORTED: 13,
    errno.ECONNRESET: 15,
    errno.EINTR: 27,
    errno.EINVAL: INVAL,
    errno.EMFILE: 33,
    errno.EMSGSIZE: 35,
    errno.ENETDOWN: 38,
    errno.ENFILE: 41,
    errno.ENOBUFS: 42,
    errno.ENOMEM: 48,
    errno.ENOTCONN: 53,
    errno.ENOTSOCK: 57,
    errno.EOPNOTSUPP: NOTSUP,
    errno.EPIPE: 64,
    errno.EPERM: 63,
    errno.ETIMEDOUT: 73,
}
FILETYPE_SOCKET_STREAM = 6
FDFLAGS_NONBLOCK = 1 << 2
#: fd_read, fd_fdstat_set_flags, fd_write, fd_filestat_get, poll_fd_readwrite, sock_shutdown, sock_accept
SOCKET_RIGHTS = 1 << 1 | 1 << 3 | 1 << 6 | 1 << 21 | 1 << 27 | 1 << 28 | 1 << 29
#: As wasmtime's own sockets told themselves from directories, whose tag is 0: libraries go on to the next descriptor.
PREOPEN_SOCKET = 1
RIFLAGS_PEEK, RIFLAGS_WAITALL = 1, 2
SDFLAGS_RD, SDFLAGS_WR = 1, 2
EVENTTYPE_CLOCK, EVENTTYPE_READ, EVENTTYPE_WRITE = 0, 1, 2
CLOCK_REALTIME, CLOCK_MONOTONIC = 0, 1
SUBCLOCK_ABSTIME = 1
EVENT_HANGUP = 1

U32 = struct.Struct("<I")
SIZE = U32
U16 = struct.Struct("<H")
#: filetype, flags, rights, inheriting rights
FDSTAT = struct.Struct("<BxH4xQQ")
#: device, inode, filetype, links, size, three times
FILESTAT = struct.Struct("<QQB7xQQQQQ")
#: tag, length of a directory's name
PRESTAT = struct.Struct("<B3xI")
SUBSCRIPTION_SIZE = 48
#: userdata, tag
SUBSCRIPTION = struct.Struct("<QB")
#: clock, time, precision, flags; at 16 in a subscription
SUBSCRIPTION_CLOCK = struct.Struct("<I4xQQH")
SUBSCRIPTION_AT = 16
#: userdata, error, type, bytes, flags
EVENT = struct.Struct("<QHB5xQH6x")
_IOVEC = struct.Struct("<II")


class BadPointer(Exception):
    """The guest named memory that it has not."""


def errno_of(error: OSError) -> int:
    return _ERRNO.get(error.errno or 0, IO)


def buffers(memory: memoryview, start: int, count: int) -> Iterator[memoryview]:
    """Yield the buffers of a list of ``iovec`` or ``ciovec``, as views of the guest's memory.

    :raises BadPointer: one lies outside of the memory
    """
    for index in range(count):
        base, length = _IOVEC.unpack_from(memory, start + index * _IOVEC.size)
        if base + length > len(memory):
            raise BadPointer
        yield memory[base : base + length]
