"""The states of a stream, as tables.

Theory of operation
-------------------
A connection carries *streams*, each one call. A stream begins with a request of the client (odd id, greater than all
before it) and ends with the server's last word: a response, or data marked as the last. In between either side may
send data, unless the call is unary. There are no resets, no windows and no pings, so that is all there is to a stream.

The state belongs to the stream, not to one end of it. Both ends run the same machine over the same moves: one applies
a move when it sends the frame, the other when it receives it. Two rules follow:

1. What a side may send is what the table of *its* role allows in the stream's state. A caller who wants something
   else gets a :class:`~shimd.ttrpc.errors.LocalProtocolError`, and the stream stays where it was.
2. What a side may receive is what the table of the *peer's* role allows. Something else breaks this stream only: a
   server answers with an error status, which ends the stream; a client fails that one call.

The specification also names a state in which the server is done and the client still sends. No implementation has it:
when the server has ended a stream it is over, and data that was on its way then meets a stream that does not exist.

Source: ttrpc PROTOCOL.md, "Streaming"; and where that is silent, the Go implementation.
"""

from enum import Enum, auto


class State(Enum):
    IDLE = auto()
    """No such stream yet."""
    UNARY = auto()
    """One request was sent; only a response may follow."""
    OPEN = auto()
    """Both sides may send data."""
    HALF_CLOSED = auto()
    """The client has sent all; the server may send data."""
    DONE = auto()


class Move(Enum):
    REQUEST = auto()
    """A request without flags."""
    REQUEST_OPEN = auto()
    """A request that data will follow."""
    REQUEST_CLOSED = auto()
    """A request that no data follows, but that may be answered with data."""
    DATA = auto()
    LAST = auto()
    """The end of this side's data, with or without a message."""
    RESPONSE = auto()


Table = dict[State, dict[Move, State]]

CLIENT: Table = {
    State.IDLE: {
        Move.REQUEST: State.UNARY,
        Move.REQUEST_OPEN: State.OPEN,
        Move.REQUEST_CLOSED: State.HALF_CLOSED,
    },
    State.UNARY: {},
    State.OPEN: {
        Move.DATA: State.OPEN,
        Move.LAST: State.HALF_CLOSED,
    },
    State.HALF_CLOSED: {},
    State.DONE: {},
}

SERVER: Table = {
    State.IDLE: {},
    State.UNARY: {
        Move.RESPONSE: State.DONE,
    },
    State.OPEN: {
        Move.DATA: State.OPEN,
        Move.LAST: State.DONE,
        Move.RESPONSE: State.DONE,
    },
    State.HALF_CLOSED: {
        Move.DATA: State.HALF_CLOSED,
        Move.LAST: State.DONE,
        Move.RESPONSE: State.DONE,
    },
    State.DONE: {},
}
