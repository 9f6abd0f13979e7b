import fcntl
import os
import socket

from shimd.linux.passed import receive_with_descriptors


def test_what_has_come_is_for_nobody_else() -> None:
    """A program that is executed later has none of it."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        socket.send_fds(near, [b"word"], [0, 1])
        data, fds, flags = receive_with_descriptors(far, 100, 4)
        try:
            assert (data, len(fds), flags & socket.MSG_CTRUNC) == (b"word", 2, 0)
            assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in fds)
        finally:
            for fd in fds:
                os.close(fd)


def test_more_than_there_is_room_for_is_told() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        socket.send_fds(near, [b"word"], [0] * 9)
        _data, fds, flags = receive_with_descriptors(far, 100, 1)
        assert flags & socket.MSG_CTRUNC
        for fd in fds:
            os.close(fd)
