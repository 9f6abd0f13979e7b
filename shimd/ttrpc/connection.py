"""Both ends of a connection without any I/O: bytes in, events out; calls in, bytes out.

::

    connection.receive_data(data)                 what the socket gave
    while (event := connection.next_event()) is not NEED_DATA: …
    to_send = connection.send_response(…)         what the socket shall take

Bytes must reach the peer in the order in which the ``send_*`` methods returned them. An event is made only from a whole
frame, so a reader may stop between any two events. The rules are in :mod:`shimd.ttrpc._state`.
"""

from shimd.ttrpc import frames
from shimd.ttrpc._state import CLIENT, SERVER, Move, State, Table
from shimd.ttrpc.codes import Code
from shimd.ttrpc.envelope import OK, DecodeError, Request, Response, Status
from shimd.ttrpc.errors import LocalProtocolError, RemoteProtocolError, StatusError, TtrpcError
from shimd.ttrpc.events import (
    NEED_DATA,
    ClientEvent,
    DataReceived,
    RequestReceived,
    ResponseReceived,
    ServerEvent,
    StreamFailed,
    StreamRefused,
)
from shimd.ttrpc.frames import MAX_DATA, NO_DATA, REMOTE_CLOSED, REMOTE_OPEN, Frame, FrameReader, FrameType

_REQUEST_FLAGS = {
    Move.REQUEST: 0,
    Move.REQUEST_OPEN: REMOTE_OPEN,
    Move.REQUEST_CLOSED: REMOTE_CLOSED,
}


class _Connection:
    """What the two ends share: the streams with their states, and the frame reader."""

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
        """Whether the stream has begun and is not over."""
        return stream_id in self._states

    def may_send(self, stream_id: int) -> bool:
        """Whether this side may send data on the stream."""
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


class ServerConnection(_Connection):
    """The end that accepted the connection."""

    _local, _remote = SERVER, CLIENT

    def __init__(self) -> None:
        super().__init__()
        self._unary: dict[int, bytes] = {}

    def next_event(self) -> ServerEvent:
        """What the next whole frame means. Frames of unknown types mean nothing: newer peers may send them."""
        while (frame := self._reader.next()) is not None:
            if not isinstance(frame, Frame):
                reason = f"message length {frame.length} exceed maximum message size of {MAX_DATA}"
                return self.refuse(frame.stream_id, Code.RESOURCE_EXHAUSTED, reason)
            event = self._on_frame(frame)
            if event is not None:
                return event
        return NEED_DATA

    def _on_frame(self, frame: Frame) -> ServerEvent | None:
        if frame.stream_id % 2 != 1:
            return self._invalid(frame, "StreamID must be odd for client initiated streams")
        if frame.type == FrameType.REQUEST:
            return self._on_request(frame)
        if frame.type == FrameType.DATA:
            return self._on_data(frame)
        return None

    def _on_request(self, frame: Frame) -> ServerEvent:
        if frame.stream_id <= self._last_id:
            return self._invalid(frame, "StreamID cannot be re-used and must increment")
        self._last_id = frame.stream_id
        try:
            request = Request.decode(frame.data)
        except DecodeError as error:
            return self._invalid(frame, f"unmarshal request error: {error}")
        state = self._remote[State.IDLE][_request_move(frame.flags)]
        self._enter(frame.stream_id, state)
        if state is State.UNARY:
            self._unary[frame.stream_id] = frame.data
        return RequestReceived(frame.stream_id, request, state is State.UNARY, state is not State.OPEN)

    def _on_data(self, frame: Frame) -> ServerEvent | None:
        state = self._states.get(frame.stream_id, State.DONE)
        last, empty = bool(frame.flags & REMOTE_CLOSED), bool(frame.flags & NO_DATA)
        if state is State.DONE:
            return self._invalid(frame, "StreamID is no longer active")
        moves = self._remote[state]
        if Move.DATA not in moves:
            kind = "unary" if state is State.UNARY else "closed"
            return self._invalid(frame, f"data handling error: stream is {kind}")
        if empty and frame.data:
            return self._invalid(frame, "data handling error: message without data includes data")
        if empty and not last:
            return None
        self._enter(frame.stream_id, moves[Move.LAST if last else Move.DATA])
        return DataReceived(frame.stream_id, None if empty else frame.data, last)

    def _invalid(self, frame: Frame, reason: str) -> StreamRefused:
        return self.refuse(frame.stream_id, Code.INVALID_ARGUMENT, reason)

    def refuse(self, stream_id: int, code: int, message: str) -> StreamRefused:
        """End a stream with an error, whether it is alive or never began: the peer learns which id was bad by it."""
        status = Status(code, message)
        self._enter(stream_id, State.DONE)
        reply = frames.encode(FrameType.RESPONSE, 0, stream_id, Response(status).encode())
        return StreamRefused(stream_id, status, reply)

    def send_response(self, stream_id: int, payload: bytes = b"", status: Status = OK) -> bytes:
        """The last word on a stream.

        :raises LocalProtocolError: the stream is over
        :raises MessageTooLarge: it does not fit into a frame
        """
        frame = frames.encode(FrameType.RESPONSE, 0, stream_id, Response(status, payload).encode())
        self._send(stream_id, Move.RESPONSE)
        return frame

    def replay(self) -> bytes:
        """Input that brings a new connection object to where this one is: the unary calls that wait for a response, and
        what was received of the next frame. For handing the socket to another process, which begins those calls anew.

        :raises LocalProtocolError: that cannot be: there are streams of data, or an oversized frame is being discarded
        """
        if self._reader.discarding or self.streaming():
            raise LocalProtocolError("only a connection with no other calls than unary ones can be replayed")
        requests = (frames.encode(FrameType.REQUEST, 0, stream_id, data) for stream_id, data in self._unary.items())
        return b"".join(requests) + self._reader.unconsumed

    def streaming(self) -> list[int]:
        """The streams that are open and not unary."""
        return [stream_id for stream_id in self._states if stream_id not in self._unary]

    def _enter(self, stream_id: int, state: State) -> None:
        super()._enter(stream_id, state)
        if state is State.DONE:
            self._unary.pop(stream_id, None)


class ClientConnection(_Connection):
    """The end that opened the connection."""

    _local, _remote = CLIENT, SERVER

    def send_request(self, request: Request, *, unary: bool = True, closed: bool = True) -> tuple[int, bytes]:
        """Begin a stream.

        :param unary: only a response may answer it
        :param closed: no data will be sent on it (a unary stream is always closed)
        :return: the stream's id, and the bytes to send
        :raises LocalProtocolError: the ids are used up; open another connection
        :raises MessageTooLarge: it does not fit into a frame
        """
        stream_id = self._last_id + 2
        if stream_id > frames.MAX_STREAM_ID:
            raise LocalProtocolError("no stream ids are left on this connection")
        move = Move.REQUEST if unary else Move.REQUEST_CLOSED if closed else Move.REQUEST_OPEN
        frame = frames.encode(FrameType.REQUEST, _REQUEST_FLAGS[move], stream_id, request.encode())
        self._last_id = stream_id
        self._enter(stream_id, self._local[State.IDLE][move])
        return stream_id, frame

    def forget(self, stream_id: int) -> None:
        """Nobody waits for the stream any more; what still comes on it is ignored. The server is not told: ttrpc has no
        way to do so."""
        self._enter(stream_id, State.DONE)

    def next_event(self) -> ClientEvent:
        """What the next whole frame means. Frames on streams that are over, or never were, are ignored."""
        while (frame := self._reader.next()) is not None:
            if frame.stream_id not in self._states:
                continue
            if not isinstance(frame, Frame):
                reason = f"message length {frame.length} exceed maximum message size of {MAX_DATA}"
                return self._fail(frame.stream_id, StatusError(Code.RESOURCE_EXHAUSTED, reason))
            event = self._on_frame(frame)
            if event is not None:
                return event
        return NEED_DATA

    def _on_frame(self, frame: Frame) -> ClientEvent | None:
        if frame.type == FrameType.RESPONSE:
            return self._on_response(frame)
        if frame.type == FrameType.DATA:
            return self._on_data(frame)
        return self._fail(frame.stream_id, RemoteProtocolError(f"unexpected message of type {frame.type}"))

    def _on_response(self, frame: Frame) -> ClientEvent:
        try:
            response = Response.decode(frame.data)
        except DecodeError as error:
            return self._fail(frame.stream_id, RemoteProtocolError(f"unmarshal response error: {error}"))
        self._enter(frame.stream_id, self._remote[self._states[frame.stream_id]][Move.RESPONSE])
        return ResponseReceived(frame.stream_id, response)

    def _on_data(self, frame: Frame) -> ClientEvent | None:
        moves = self._remote[self._states[frame.stream_id]]
        last, empty = bool(frame.flags & REMOTE_CLOSED), bool(frame.flags & NO_DATA)
        if Move.DATA not in moves:
            return self._fail(frame.stream_id, RemoteProtocolError("received data on a unary stream"))
        if empty and frame.data:
            return self._fail(frame.stream_id, RemoteProtocolError("message without data includes data"))
        if empty and not last:
            return None
        self._enter(frame.stream_id, moves[Move.LAST if last else Move.DATA])
        return DataReceived(frame.stream_id, None if empty else frame.data, last)

    def _fail(self, stream_id: int, error: TtrpcError) -> StreamFailed:
        self._enter(stream_id, State.DONE)
        return StreamFailed(stream_id, error)


def _request_move(flags: int) -> Move:
    if flags & REMOTE_CLOSED:
        return Move.REQUEST_CLOSED
    return Move.REQUEST_OPEN if flags & REMOTE_OPEN else Move.REQUEST
