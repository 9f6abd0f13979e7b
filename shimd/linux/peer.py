"""The process at the other end of a Unix socket."""

import socket
import struct


def peer_pid(sock: socket.socket) -> int:
    """Returns the pid of the process that called listen(2) at the other end (unix(7), SO_PEERCRED)."""
    pid: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return pid
