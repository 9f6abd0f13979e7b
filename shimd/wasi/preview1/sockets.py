"""A guest's sockets: the listening ones that it starts with, and the connections that it has accepted."""

import os
import socket
import struct
from collections.abc import Callable, Sequence
from itertools import count

from shimd.wasi.preview1 import abi, poll

#: Connections' numbers start here: below, descriptors are the engine's, which gives them the lowest free numbers.
CONNECTIONS = 1 << 16
#: What else a function says of a socket; it is not supported, if nothing stands here.
_REFUSALS = {"fd_seek": abi.SPIPE, "fd_tell": abi.SPIPE, "fd_pread": abi.SPIPE, "fd_pwrite": abi.SPIPE}


class Sockets:
    """The sockets of one guest. Methods are WASI preview 1's functions: the memory, their arguments; an ``errno``."""

    def __init__(self, listening: Sequence[int]) -> None:
        """:param listening: descriptors of the process's, from now on this object's"""
        self._open = {abi.FIRST + index: socket.socket(fileno=fd) for index, fd in enumerate(listening)}

    def call(self, name: str, memory: memoryview, *arguments: int) -> int:
        """Call any function whose first argument is a descriptor, which is known to be a socket's."""
        if arguments[0] not in self._open:
            return abi.BADF
        function: Callable[..., int] | None = getattr(self, name, None)
        if function is None:
            return abi.NOTDIR if name.startswith("path_") else _REFUSALS.get(name, abi.NOTSUP)
        return _guarded(function, memory, *arguments)

    def poll_oneoff(self, memory: memoryview, *arguments: int) -> int:
        """Wait as ``poll_oneoff`` does; returns ``poll.FOREIGN`` if no socket is concerned."""
        return _guarded(poll.oneoff, memory, self._descriptor, *arguments)

    def _descriptor(self, fd: int) -> int | None:
        """Returns the process's descriptor of a guest's socket; ``None``: it is not a socket."""
        return self._open[fd].fileno() if fd in self._open else None

    def sock_accept(self, memory: memoryview, fd: int, flags: int, opened: int) -> int:
        number = next(number for number in count(CONNECTIONS) if number not in self._open)
        abi.U32.pack_into(memory, opened, number)  # first: a wrong pointer must not cost a connection
        connection, _address = self._open[fd].accept()
        connection.setblocking(not flags & abi.FDFLAGS_NONBLOCK)
        self._open[number] = connection
        return abi.SUCCESS

    def fd_read(self, memory: memoryview, fd: int, iovs: int, length: int, read: int) -> int:
        received = self._open[fd].recvmsg_into(list(abi.buffers(memory, iovs, length)))[0]
        abi.SIZE.pack_into(memory, read, received)
        return abi.SUCCESS

    def fd_write(self, memory: memoryview, fd: int, iovs: int, length: int, written: int) -> int:
        return self.sock_send(memory, fd, iovs, length, 0, written)

    def sock_recv(self, memory: memoryview, fd: int, iovs: int, length: int, flags: int, read: int, out: int) -> int:
        wanted = socket.MSG_PEEK if flags & abi.RIFLAGS_PEEK else 0
        wanted |= socket.MSG_WAITALL if flags & abi.RIFLAGS_WAITALL else 0
        received = self._open[fd].recvmsg_into(list(abi.buffers(memory, iovs, length)), 0, wanted)[0]
        abi.SIZE.pack_into(memory, read, received)
        abi.U16.pack_into(memory, out, 0)
        return abi.SUCCESS

    def sock_send(self, memory: memoryview, fd: int, iovs: int, length: int, _flags: int, written: int) -> int:
        sent = self._open[fd].sendmsg(list(abi.buffers(memory, iovs, length)), (), socket.MSG_NOSIGNAL)
        abi.SIZE.pack_into(memory, written, sent)
        return abi.SUCCESS

    def sock_shutdown(self, _memory: memoryview, fd: int, how: int) -> int:
        ways = {
            abi.SDFLAGS_RD: socket.SHUT_RD,
            abi.SDFLAGS_WR: socket.SHUT_WR,
            abi.SDFLAGS_RD | abi.SDFLAGS_WR: socket.SHUT_RDWR,
        }
        if how not in ways:
            return abi.INVAL
        self._open[fd].shutdown(ways[how])
        return abi.SUCCESS

    def fd_close(self, _memory: memoryview, fd: int) -> int:
        self._open.pop(fd).close()
        return abi.SUCCESS

    def fd_renumber(self, memory: memoryview, fd: int, to: int) -> int:
        if to not in self._open:
            return abi.NOTSUP if to < CONNECTIONS else abi.BADF
        if to != fd:
            self.fd_close(memory, to)
            self._open[to] = self._open.pop(fd)
        return abi.SUCCESS

    def fd_fdstat_get(self, memory: memoryview, fd: int, stat: int) -> int:
        flags = 0 if self._open[fd].getblocking() else abi.FDFLAGS_NONBLOCK
        rights = abi.SOCKET_RIGHTS
        abi.FDSTAT.pack_into(memory, stat, abi.FILETYPE_SOCKET_STREAM, flags, rights, rights)
        return abi.SUCCESS

    def fd_fdstat_set_flags(self, _memory: memoryview, fd: int, flags: int) -> int:
        if flags & ~abi.FDFLAGS_NONBLOCK:
            return abi.INVAL
        self._open[fd].setblocking(not flags)
        return abi.SUCCESS

    def fd_filestat_get(self, memory: memoryview, fd: int, stat: int) -> int:
        found = os.fstat(self._open[fd].fileno())
        kind = abi.FILETYPE_SOCKET_STREAM
        abi.FILESTAT.pack_into(memory, stat, found.st_dev, found.st_ino, kind, 1, 0, 0, 0, 0)
        return abi.SUCCESS

    def fd_prestat_get(self, memory: memoryview, fd: int, stat: int) -> int:
        """Describe a socket: a guest's library that looks for directories goes on to the next descriptor."""
        if fd >= CONNECTIONS:
            return abi.BADF
        abi.PRESTAT.pack_into(memory, stat, abi.PREOPEN_SOCKET, 0)
        return abi.SUCCESS


def _guarded(function: Callable[..., int], *arguments: object) -> int:
    try:
        return function(*arguments)
    except OSError as error:
        return abi.errno_of(error)
    except (abi.BadPointer, struct.error):
        return abi.FAULT
