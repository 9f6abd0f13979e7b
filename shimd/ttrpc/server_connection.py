"""The server's end of a connection, without I/O (see :mod:`shimd.ttrpc.connection`)."""

from shimd.ttrpc import frames
from shimd.ttrpc._state import CLIENT, SERVER, Move, State
from shimd.ttrpc.codes import Code
from shimd.ttrpc.connection import Connection
from shimd.ttrpc.envelope import OK, DecodeError, Request, Response, Status
from shimd.ttrpc.errors import LocalProtocolError
from shimd.ttrpc.events import NEED_DATA, DataReceived, RequestReceived, ServerEvent, StreamRefused
from shimd.ttrpc.frames import MAX_DATA, NO_DATA, REMOTE_CLOSED, REMOTE_OPEN, Frame, FrameType


class ServerConnection(Connection):
    """The end that accepted the connection."""

    _local, _remote = SERVER, CLIENT

    def __init__(self) -> None:
        super().__init__()
        self._unary: dict[int, bytes] = {}

    def next_event(self) -> ServerEvent:
        """Returns the event of the next whole frame. Frames of unknown types are ignored: newer peers may send them."""
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


def _request_move(flags: int) -> Move:
    if flags & REMOTE_CLOSED:
        return Move.REQUEST_CLOSED
    return Move.REQUEST_OPEN if flags & REMOTE_OPEN else Move.REQUEST
