"""What the server's end makes of every kind of input, without a socket."""

import pytest

from shimd.ttrpc import frames
from shimd.ttrpc.codes import Code
from shimd.ttrpc.envelope import Request, Response, Status
from shimd.ttrpc.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError
from shimd.ttrpc.events import NEED_DATA, DataReceived, RequestReceived, ServerEvent, StreamRefused
from shimd.ttrpc.frames import MAX_DATA, NO_DATA, REMOTE_CLOSED, REMOTE_OPEN, Frame, FrameReader, FrameType
from shimd.ttrpc.server_connection import ServerConnection

CALL = Request("s", "m", b"payload")


def request(stream_id: int, flags: int = 0, call: Request = CALL) -> bytes:
    return frames.encode(FrameType.REQUEST, flags, stream_id, call.encode())


def data(stream_id: int, message: bytes = b"x", flags: int = 0) -> bytes:
    return frames.encode(FrameType.DATA, flags, stream_id, message)


def oversized(stream_id: int) -> bytes:
    return (MAX_DATA + 1).to_bytes(4, "big") + stream_id.to_bytes(4, "big") + b"\1\0" + bytes(MAX_DATA + 1)


def feed(connection: ServerConnection, *wire: bytes) -> list[ServerEvent]:
    events = []
    for piece in wire:
        connection.receive_data(piece)
        while (event := connection.next_event()) is not NEED_DATA:
            events.append(event)
    return events


@pytest.mark.parametrize(
    ("flags", "unary", "closed"),
    [
        (0, True, True),
        (REMOTE_CLOSED, False, True),
        (REMOTE_OPEN, False, False),
        (REMOTE_OPEN | REMOTE_CLOSED, False, True),
    ],
)
def test_flags_of_a_request(flags: int, unary: bool, closed: bool) -> None:
    assert feed(ServerConnection(), request(1, flags)) == [RequestReceived(1, CALL, unary, closed)]


def test_data_of_a_stream() -> None:
    events = feed(
        ServerConnection(),
        request(3, REMOTE_OPEN),
        data(3, b"one"),
        data(3, b""),
        data(3, b"", NO_DATA),
        data(3, b"last", REMOTE_CLOSED),
    )
    assert events[1:] == [
        DataReceived(3, b"one", False),
        DataReceived(3, b"", False),  # an empty message is a message
        DataReceived(3, b"last", True),
    ]


def test_the_end_of_a_stream_without_a_message() -> None:
    events = feed(ServerConnection(), request(3, REMOTE_OPEN), data(3, b"", REMOTE_CLOSED | NO_DATA))
    assert events[1] == DataReceived(3, None, True)


HOSTILE = [
    ("even id", [request(2)], 2, Code.INVALID_ARGUMENT, "StreamID must be odd for client initiated streams"),
    ("id zero", [request(0)], 0, Code.INVALID_ARGUMENT, "StreamID must be odd for client initiated streams"),
    ("even id, odd type", [frames.encode(9, 0, 4)], 4, Code.INVALID_ARGUMENT, "StreamID must be odd"),
    ("id in use", [request(1), request(1)], 1, Code.INVALID_ARGUMENT, "cannot be re-used and must increment"),
    ("id going down", [request(5), request(3)], 3, Code.INVALID_ARGUMENT, "cannot be re-used and must increment"),
    ("garbage request", [frames.encode(1, 0, 1, b"\xff\xff")], 1, Code.INVALID_ARGUMENT, "unmarshal request error"),
    ("data before a request", [data(1)], 1, Code.INVALID_ARGUMENT, "StreamID is no longer active"),
    ("data on a unary stream", [request(1), data(1)], 1, Code.INVALID_ARGUMENT, "stream is unary"),
    ("data after the end", [request(1, REMOTE_CLOSED), data(1)], 1, Code.INVALID_ARGUMENT, "stream is closed"),
    ("data without data", [request(1, REMOTE_OPEN), data(1, b"x", NO_DATA)], 1, Code.INVALID_ARGUMENT, "includes data"),
    ("oversized", [oversized(1)], 1, Code.RESOURCE_EXHAUSTED, "message length 4194305 exceed maximum"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("wire", "stream_id", "code", "message"), [case[1:] for case in HOSTILE], ids=[c[0] for c in HOSTILE]
)
def test_broken_rules(wire: list[bytes], stream_id: int, code: Code, message: str) -> None:
    """Each gets a status on its own stream, which is then over; the next request is served."""
    connection = ServerConnection()
    refused = feed(connection, *wire)[-1]
    assert isinstance(refused, StreamRefused)
    assert (refused.stream_id, refused.status.code) == (stream_id, code)
    assert message in refused.status.message
    assert not connection.is_open(stream_id)
    reader = FrameReader()
    reader.feed(refused.reply)
    reply = reader.next()
    assert reply == Frame(FrameType.RESPONSE, 0, stream_id, Response(refused.status).encode())
    assert feed(connection, request(99)) == [RequestReceived(99, CALL, True, True)]


@pytest.mark.parametrize("frame_type", [0, FrameType.RESPONSE, 4, 0xFF])
def test_frames_that_mean_nothing_are_ignored(frame_type: int) -> None:
    wire = frames.encode(frame_type, 0xFF, 1, b"whatever")
    assert feed(ServerConnection(), wire + request(1)) == [RequestReceived(1, CALL, True, True)]


def test_an_id_in_use_ends_that_stream_only() -> None:
    connection = ServerConnection()
    feed(connection, request(1), request(3), request(3))
    assert connection.is_open(1)
    with pytest.raises(LocalProtocolError):
        connection.send_response(3)


def test_the_end_in_the_middle_of_a_frame() -> None:
    connection = ServerConnection()
    feed(connection, request(1), request(3)[:-1])
    with pytest.raises(RemoteProtocolError):
        connection.receive_eof()


def test_the_end_in_the_middle_of_an_oversized_frame() -> None:
    connection = ServerConnection()
    feed(connection, oversized(1)[:-1])
    with pytest.raises(RemoteProtocolError):
        connection.receive_eof()


def test_the_end_between_frames() -> None:
    connection = ServerConnection()
    feed(connection, request(1))
    connection.receive_eof()


def test_a_response_that_is_too_large_can_be_replaced() -> None:
    connection = ServerConnection()
    feed(connection, request(1))
    with pytest.raises(MessageTooLarge):
        connection.send_response(1, bytes(MAX_DATA))
    assert connection.send_response(1, status=Status(Code.RESOURCE_EXHAUSTED, "too large"))


def test_one_response_a_stream() -> None:
    connection = ServerConnection()
    feed(connection, request(1))
    connection.send_response(1)
    with pytest.raises(LocalProtocolError, match="stream 1 is DONE: RESPONSE"):
        connection.send_response(1)


def test_no_data_may_answer_a_unary_call() -> None:
    connection = ServerConnection()
    feed(connection, request(1))
    with pytest.raises(LocalProtocolError, match="stream 1 is UNARY: DATA"):
        connection.send_data(1, b"x")


def test_replay() -> None:
    """The successor sees the calls that wait, then goes on in the middle of the frame."""
    connection = ServerConnection()
    feed(connection, request(1), request(3), request(5), request(7)[:13])
    connection.send_response(3)
    successor = ServerConnection()
    events = feed(successor, connection.replay(), request(7)[13:])
    assert events == [RequestReceived(stream_id, CALL, True, True) for stream_id in (1, 5, 7)]


def test_streams_cannot_be_replayed() -> None:
    connection = ServerConnection()
    feed(connection, request(1, REMOTE_OPEN), request(3))
    assert connection.streaming() == [1]
    with pytest.raises(LocalProtocolError):
        connection.replay()
    connection.refuse(1, Code.UNAVAILABLE, "moving")
    assert connection.replay() == request(3)


def test_an_oversized_frame_cannot_be_replayed() -> None:
    connection = ServerConnection()
    feed(connection, oversized(1)[:100])
    with pytest.raises(LocalProtocolError):
        connection.replay()
