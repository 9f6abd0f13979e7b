"""What the client's end makes of every kind of input, without a socket."""

import pytest

from shimd.ttrpc import frames
from shimd.ttrpc.client_connection import ClientConnection
from shimd.ttrpc.codes import Code
from shimd.ttrpc.envelope import Request, Response, Status
from shimd.ttrpc.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError, StatusError
from shimd.ttrpc.events import NEED_DATA, ClientEvent, DataReceived, ResponseReceived, StreamFailed
from shimd.ttrpc.frames import MAX_DATA, MAX_STREAM_ID, NO_DATA, REMOTE_CLOSED, Frame, FrameReader, FrameType

CALL = Request("s", "m", b"payload")


def response(stream_id: int, answer: Response = Response(payload=b"x")) -> bytes:  # noqa: B008
    return frames.encode(FrameType.RESPONSE, 0, stream_id, answer.encode())


def data(stream_id: int, message: bytes = b"x", flags: int = 0) -> bytes:
    return frames.encode(FrameType.DATA, flags, stream_id, message)


def feed(connection: ClientConnection, *wire: bytes) -> list[ClientEvent]:
    events = []
    for piece in wire:
        connection.receive_data(piece)
        while (event := connection.next_event()) is not NEED_DATA:
            events.append(event)
    return events


def only_frame(wire: bytes) -> Frame:
    reader = FrameReader()
    reader.feed(wire)
    frame = reader.next()
    assert isinstance(frame, Frame)
    assert reader.unconsumed == b""
    return frame


@pytest.mark.parametrize(("unary", "closed", "flags"), [(True, True, 0), (False, True, 1), (False, False, 2)])
def test_flags_of_a_request(unary: bool, closed: bool, flags: int) -> None:
    stream_id, wire = ClientConnection().send_request(CALL, unary=unary, closed=closed)
    assert only_frame(wire) == Frame(FrameType.REQUEST, flags, stream_id, CALL.encode())


def test_ids_are_odd_and_increase() -> None:
    connection = ClientConnection()
    assert [connection.send_request(CALL)[0] for _ in range(4)] == [1, 3, 5, 7]


def test_ids_come_to_an_end() -> None:
    connection = ClientConnection()
    connection._last_id = MAX_STREAM_ID - 2
    assert connection.send_request(CALL)[0] == MAX_STREAM_ID
    with pytest.raises(LocalProtocolError, match="no stream ids are left"):
        connection.send_request(CALL)


def test_a_request_that_is_too_large_takes_no_id() -> None:
    connection = ClientConnection()
    with pytest.raises(MessageTooLarge):
        connection.send_request(Request("s", "m", bytes(MAX_DATA)))
    assert connection.send_request(CALL)[0] == 1


def test_a_unary_call() -> None:
    connection = ClientConnection()
    connection.send_request(CALL)
    failure = Response(Status(Code.NOT_FOUND, "no"))
    assert feed(connection, response(1, failure)) == [ResponseReceived(1, failure)]
    assert not connection.is_open(1)


def test_the_end_of_the_clients_data_is_a_frame_of_its_own() -> None:
    """Go's server takes no message with the mark of the end."""
    connection = ClientConnection()
    connection.send_request(CALL, unary=False, closed=False)
    assert only_frame(connection.send_data(1, b"last")) == Frame(FrameType.DATA, 0, 1, b"last")
    assert only_frame(connection.send_end(1)) == Frame(FrameType.DATA, REMOTE_CLOSED | NO_DATA, 1)
    with pytest.raises(LocalProtocolError, match="stream 1 is HALF_CLOSED: DATA"):
        connection.send_data(1, b"more")


def test_data_and_its_end() -> None:
    connection = ClientConnection()
    connection.send_request(CALL, unary=False)
    events = feed(connection, data(1), data(1, b""), data(1, b"", NO_DATA), data(1, b"y", REMOTE_CLOSED))
    assert events == [DataReceived(1, b"x", False), DataReceived(1, b"", False), DataReceived(1, b"y", True)]
    assert not connection.is_open(1)


FAILURES = [
    ("not a response", True, frames.encode(2, 0, 1, b"\xff"), "unmarshal response error"),
    ("data on a unary stream", True, data(1), "received data on a unary stream"),
    ("data without data", False, data(1, b"x", NO_DATA), "includes data"),
    ("a request", True, frames.encode(1, 0, 1, b""), "unexpected message of type 1"),
    ("an unknown type", True, frames.encode(9, 0, 1, b""), "unexpected message of type 9"),
]


@pytest.mark.parametrize(
    ("unary", "wire", "message"), [case[1:] for case in FAILURES], ids=[case[0] for case in FAILURES]
)
def test_broken_rules_fail_one_call(unary: bool, wire: bytes, message: str) -> None:
    connection = ClientConnection()
    connection.send_request(CALL, unary=unary)
    connection.send_request(CALL)
    failed, answered = feed(connection, wire, response(3))
    assert isinstance(failed, StreamFailed)
    assert isinstance(failed.error, RemoteProtocolError)
    assert message in str(failed.error)
    assert answered == ResponseReceived(3, Response(payload=b"x"))


def test_an_oversized_answer_fails_its_call() -> None:
    connection = ClientConnection()
    connection.send_request(CALL)
    header = (MAX_DATA + 1).to_bytes(4, "big") + (1).to_bytes(4, "big") + b"\2\0"
    (failed,) = feed(connection, header + bytes(MAX_DATA + 1))
    assert isinstance(failed, StreamFailed)
    assert isinstance(failed.error, StatusError)
    assert failed.error.code == Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("stream_id", [0, 2, 3, 1001])
def test_frames_on_streams_that_are_not_open_are_ignored(stream_id: int) -> None:
    connection = ClientConnection()
    connection.send_request(CALL)
    assert feed(connection, response(stream_id) + data(stream_id)) == []


def test_a_call_that_was_left_is_ignored() -> None:
    connection = ClientConnection()
    connection.send_request(CALL)
    connection.forget(1)
    assert feed(connection, response(1)) == []
