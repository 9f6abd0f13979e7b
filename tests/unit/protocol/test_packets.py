"""Packets between processes that may go at any moment."""

import socket

from shimd.protocol.fork_server import Listed, Pong, decode_event
from shimd.protocol.packets import receive, send


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
