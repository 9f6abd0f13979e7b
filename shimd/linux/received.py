"""Descriptors that come over a socket (unix(7), ``SCM_RIGHTS``), which no program that is started from here inherits.

(:func:`socket.recv_fds` takes flags and makes no use of them: what it returns is inherited. So is anyio's.)
"""

import array
import socket


def receive_fds(sock: socket.socket, size: int, most: int) -> tuple[bytes, list[int], int]:
    """Receive a packet with its descriptors, close-on-exec; they are the caller's.

    :param size: of the packet, and ``most``: of the descriptors; what is more is lost, as the flags tell, which are
        the third that is returned
    :raises OSError: as of recvmsg(2)
    """
    fds = array.array("i")
    data, ancillary, flags, _ = sock.recvmsg(size, socket.CMSG_LEN(most * fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds), flags
