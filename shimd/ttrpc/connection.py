"""The state that both ends of a connection share. No I/O: bytes in, events out; calls in, bytes out.

::

    connection.receive_data(data)                 what the socket gave
    while (event := connection.next_event()) is not NEED_DATA: …
    to_send = connection.send_data(…)             what the socket shall take

Bytes must reach the peer in the order in which the ``send_*`` methods returned them. An event is made only from a whole
frame, so a reader may stop between any two events. The rules are in :mod:`shimd.ttrpc._state`.
"""

from shimd.ttrpc import frames
from shimd.ttrpc._state import Move, State, Table
from shimd.ttrpc.errors import LocalProtocolError, RemoteProtocolError
from shimd.ttrpc.frames import NO_DATA, REMOTE_CLOSED, FrameReader, FrameType


class Connection:
    """The streams with their states, and the frame reader."""

    _local: Table
    _remote: Table

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._states: dict[int, State] = {}
        self._last_id = -1

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the peer; then call ``next_event`` until it gives ``NEED_DATA``."""
        self._reader.feed(data)

    def receive_eof(self) -> None:
        """The peer closed the connection.

        :raises RemoteProtocolError: in the middle of a frame
        """
        if self._reader.unconsumed or self._reader.discarding:
            raise RemoteProtocolError("the connection ended in the middle of a frame")

    def is_open(self, stream_id: int) -> bool:
        """Returns whether the stream has begun and is not over."""
        return stream_id in self._states

    def may_send(self, stream_id: int) -> bool:
        """Returns whether this side may send data on the stream."""
        return Move.DATA in self._local[self._states.get(stream_id, State.DONE)]

    def send_data(self, stream_id: int, data: bytes) -> bytes:
        """One message on a stream that is not unary.

        :raises LocalProtocolError: the stream's state does not allow it
        :raises MessageTooLarge: it does not fit into a frame
        """
        frame = frames.encode(FrameType.DATA, 0, stream_id, data)
        self._send(stream_id, Move.DATA)
        return frame

    def send_end(self, stream_id: int) -> bytes:
        """The end of this side's data. On a server the stream is over, and its status is OK.

        :raises LocalProtocolError: the stream's state does not allow it
        """
        self._send(stream_id, Move.LAST)
        return frames.encode(FrameType.DATA, REMOTE_CLOSED | NO_DATA, stream_id)

    def _send(self, stream_id: int, move: Move) -> None:
        state = self._states.get(stream_id, State.DONE)
        if move not in self._local[state]:
            raise LocalProtocolError(f"stream {stream_id} is {state.name}: {move.name} is not allowed")
        self._enter(stream_id, self._local[state][move])

    def _enter(self, stream_id: int, state: State) -> None:
        """Only living streams are remembered: for one that is DONE the id alone tells."""
        if state is State.DONE:
            self._states.pop(stream_id, None)
        else:
            self._states[stream_id] = state
