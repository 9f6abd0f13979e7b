"""The client's end of a connection, without I/O (see :mod:`shimd.ttrpc.connection`)."""

from shimd.ttrpc import frames
from shimd.ttrpc._state import CLIENT, SERVER, Move, State
from shimd.ttrpc.codes import Code
from shimd.ttrpc.connection import Connection
from shimd.ttrpc.envelope import DecodeError, Request, Response
from shimd.ttrpc.errors import LocalProtocolError, RemoteProtocolError, StatusError, TtrpcError
from shimd.ttrpc.events import NEED_DATA, ClientEvent, DataReceived, ResponseReceived, StreamFailed
from shimd.ttrpc.frames import MAX_DATA, NO_DATA, REMOTE_CLOSED, REMOTE_OPEN, Frame, FrameType

_REQUEST_FLAGS = {
    Move.REQUEST: 0,
    Move.REQUEST_OPEN: REMOTE_OPEN,
    Move.REQUEST_CLOSED: REMOTE_CLOSED,
}


class ClientConnection(Connection):
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
        """Returns the event of the next whole frame. Frames on streams that are over, or never were, are ignored."""
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
