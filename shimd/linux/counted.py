"""Memory that outlives the process, and transfers that the kernel counts in it.

Who is killed after send(2) and before it could note how much was sent leaves a riddle to its successor. recvmmsg(2) and
sendmmsg(2) write the number of bytes into memory themselves, within the same system call, and a process is not killed
within one: what they say in shared memory is so, whenever the process died.
"""

import ctypes
import os
import socket
from ctypes import POINTER, c_int, c_long, c_size_t, c_uint, c_void_p

_libc = ctypes.CDLL(None, use_errno=True)
_PROT_READ, _PROT_WRITE, _MAP_SHARED = 1, 2, 1
_MAP_FAILED = c_void_p(-1).value

_mmap = _libc["mmap"]
_mmap.argtypes, _mmap.restype = (c_void_p, c_size_t, c_int, c_int, c_int, c_long), c_void_p
_munmap = _libc["munmap"]
_munmap.argtypes, _munmap.restype = (c_void_p, c_size_t), c_int
_recvmmsg = _libc["recvmmsg"]
_recvmmsg.argtypes, _recvmmsg.restype = (c_int, c_void_p, c_uint, c_int, c_void_p), c_int
_sendmmsg = _libc["sendmmsg"]
_sendmmsg.argtypes, _sendmmsg.restype = (c_int, c_void_p, c_uint, c_int), c_int
_SEND_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = [
        ("name", c_void_p),
        ("namelen", c_uint),
        ("iov", POINTER(c_size_t)),
        ("iovlen", c_size_t),
        ("control", c_void_p),
        ("controllen", c_size_t),
        ("flags", c_int),
    ]


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = [("header", _Header), ("count", c_uint)]


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


class Mapping:
    """A file's memory. (Python's own ``mmap`` would keep a second descriptor of each.)"""

    def __init__(self, fd: int, size: int) -> None:
        """
        :raises OSError: there is no memory for it
        """
        address = _mmap(None, size, _PROT_READ | _PROT_WRITE, _MAP_SHARED, fd, 0)
        if address == _MAP_FAILED:
            raise _error()
        self.address, self.size = address, size
        self.bytes = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
        self.words = self.bytes[: size & ~7].cast("Q")

    def close(self) -> None:
        """Nothing may use it any more."""
        if self.size:
            self.words.release()
            self.bytes.release()
            _munmap(self.address, self.size)
            self.size = 0


class Counted:
    """Transfers of a socket, one at a time, whose length the kernel notes at a place of a mapping."""

    #: Bytes that it takes there.
    SIZE = ctypes.sizeof(_Message)

    def __init__(self, mapping: Mapping, offset: int) -> None:
        """What is counted there already stays."""
        self._at = mapping.address + offset
        self._base = mapping.address
        self._part = (c_size_t * 2)()
        self._count = mapping.bytes[offset + _Message.count.offset : offset + ctypes.sizeof(_Message)].cast("I")
        message = _Message.from_address(self._at)
        ctypes.memset(self._at, 0, ctypes.sizeof(_Header))  # with a dead process's addresses
        message.header.iov, message.header.iovlen = self._part, 1

    @property
    def count(self) -> int:
        return self._count[0]

    def clear(self) -> None:
        self._count[0] = 0

    def close(self) -> None:
        """Before its mapping is."""
        self._count.release()

    def receive(self, fd: int, offset: int, size: int) -> int:
        """Fill the mapping from ``offset`` on, without waiting; 0 is the end of the stream.

        :raises OSError: nothing is there yet (BlockingIOError), or the connection broke
        """
        self._part[0], self._part[1] = self._base + offset, size
        if _recvmmsg(fd, self._at, 1, socket.MSG_DONTWAIT, None) < 0:
            raise _error()
        return self._count[0]

    def send(self, fd: int, offset: int, size: int) -> int:
        """Send from the mapping, without waiting; how many bytes that was.

        :raises OSError: the socket is full (BlockingIOError), or the connection broke
        """
        self._part[0], self._part[1] = self._base + offset, size
        if _sendmmsg(fd, self._at, 1, _SEND_FLAGS) < 0:
            raise _error()
        return self._count[0]
