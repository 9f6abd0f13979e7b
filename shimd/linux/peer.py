"""The process at the other end of a Unix socket."""

import socket
import struct


def peer_pid(sock: socket.socket) -> int:
    """Returns the pid of the process that called listen(2) at the other end (unix(7), SO_PEERCRED)."""
    return _credentials(sock)[0]


def peer_uid(sock: socket.socket) -> int:
    """Returns the user of the process that has connected."""
    return _credentials(sock)[1]


def _credentials(sock: socket.socket) -> tuple[int, int, int]:
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid, gid
