"""Packets: one message each on a SEQPACKET socket, with descriptors by SCM_RIGHTS (unix(7))."""

import array
import errno
import os
import socket
from collections.abc import Sequence
from typing import TypeVar

from shimd.linux.memory_file import memory_file, read_file
from shimd.linux.passed import receive_with_descriptors
from shimd.protocol.codec import Decoder, encode
from shimd.protocol.constants import MAX_FDS, MAX_PACKET

M = TypeVar("M")


class LostDescriptors(OSError):
    """A message came without its descriptors, which this process has no room for: it has as many open as it may."""

    def __init__(self, message: object) -> None:
        super().__init__(errno.EMFILE, os.strerror(errno.EMFILE))
        self.message = message


def send(sock: socket.socket, message: object, fds: Sequence[int] = ()) -> None:
    """Send one message; the descriptors stay the caller's.

    :raises OSError: as of sendmsg(2)
    """
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([encode(message)], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, decode: Decoder[M]) -> tuple[M, list[int]] | None:
    """Receive one message with its descriptors (close-on-exec), which are the caller's then.

    :returns: ``None`` at the end of the connection
    :raises BlockingIOError: the socket is non-blocking and empty
    :raises NotAMessage: what came is no message that is expected here
    :raises LostDescriptors: too many descriptors came with it
    :raises OSError: as of recvmsg(2)
    """
    try:
        data, fds, flags = receive_with_descriptors(sock, MAX_PACKET, MAX_FDS)
    except ConnectionResetError:  # it has gone and not read all; what it said itself comes after that
        data, fds, flags = receive_with_descriptors(sock, MAX_PACKET, MAX_FDS)
    try:
        if not data:
            _close(fds)
            return None
        message = decode(data)
        if flags & socket.MSG_CTRUNC:  # some descriptors are missing, and nobody could tell which
            raise LostDescriptors(message)
        return message, fds
    except BaseException:
        _close(fds)
        raise


def message_file(name: str, message: object) -> int:
    """A message in a file in memory, for what may exceed a packet; the caller closes it.

    :raises OSError: there is no memory for it
    """
    return memory_file(name, encode(message))


def read_message(fd: int, decode: Decoder[M]) -> M:
    """The message in a file.

    :raises NotAMessage: it has none that is expected here
    """
    return decode(read_file(fd))


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
