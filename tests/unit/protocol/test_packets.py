"""Packets between processes that may go at any moment."""

import os
import resource
import socket

import pytest

from shimd.protocol.fork_server import Listed, Pong, Spawn, decode_event, decode_request
from shimd.protocol.packets import LostDescriptors, receive, send


def test_who_goes_without_having_read_all_is_heard_to_the_end() -> None:
    """The kernel tells of a reset before it gives what was said: a refusal would be taken for a death."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            send(theirs, Pong())
            send(theirs, Listed())
            send(ours, Pong())
        assert receive(ours, decode_event) == (Pong(), [])
        assert receive(ours, decode_event) == (Listed(), [])
        assert receive(ours, decode_event) is None


def test_no_program_inherits_what_was_received() -> None:
    """A write end of somebody's standard input, say: the last to close it ends that."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        send(ours, Spawn("a"), [0, 1])
        packet = receive(theirs, decode_request)
    assert packet is not None
    message, fds = packet
    assert message == Spawn("a") and len(fds) == 2
    assert not any(map(os.get_inheritable, fds))
    for fd in fds:
        os.close(fd)


def test_descriptors_that_there_is_no_room_for() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        send(ours, Spawn("a"), [0, 1])
        before = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(ours.fileno(), theirs.fileno()) + 1, hard))
        try:
            with pytest.raises(LostDescriptors) as lost:
                receive(theirs, decode_request)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert lost.value.message == Spawn("a")
        assert len(os.listdir("/proc/self/fd")) == before
