"""Descriptors that come over a socket (SCM_RIGHTS, unix(7))."""

import array
import socket


def receive_with_descriptors(sock: socket.socket, size: int, most: int) -> tuple[bytes, list[int], int]:
    """A message, its descriptors, and the flags that came with it.

    They are close-on-exec, and so nobody else's: ``socket.recv_fds`` takes flags, and lets them fall.

    :raises OSError: as of recvmsg(2)
    """
    descriptors = array.array("i")
    space = socket.CMSG_LEN(most * descriptors.itemsize)
    data, ancillary, flags, _address = sock.recvmsg(size, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return data, list(descriptors), flags
