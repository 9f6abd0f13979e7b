"""Random and half-right input for the frame reader, both ends of a connection, and a live server."""

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shimd.ttrpc import Call, Client, Limits, Method, Server, frames
from shimd.ttrpc.client_connection import ClientConnection
from shimd.ttrpc.envelope import Request, Response, Status
from shimd.ttrpc.errors import RemoteProtocolError
from shimd.ttrpc.events import NEED_DATA, ClientEvent, RequestReceived, ServerEvent, StreamRefused
from shimd.ttrpc.frames import Frame, FrameReader, OversizedFrame
from shimd.ttrpc.server_connection import ServerConnection
from shimd.ttrpc.testing import memory_pair

BOUNDED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

IDS = st.sampled_from([0, 1, 2, 3, 5, 7, 0xFFFFFFFF])
METHODS = st.sampled_from(["Echo", "Count", "Total", "Double", "Nope"])
ENVELOPES = st.one_of(
    st.builds(
        Request, st.just("test.Test"), METHODS, st.binary(max_size=4), st.sampled_from([0, 0, 1, -1, 10**12])
    ).map(Request.encode),
    st.builds(Response, st.builds(Status, st.integers(0, 17), st.text(max_size=3)), st.binary(max_size=4)).map(
        Response.encode
    ),
    st.binary(max_size=30),
)
FRAMES = st.builds(frames.encode, st.sampled_from([1, 1, 2, 3, 3, 0, 9]), st.integers(0, 7), IDS, ENVELOPES)
NOISE = st.one_of(FRAMES, FRAMES, FRAMES, st.binary(max_size=40))
WIRE = st.lists(NOISE, max_size=12).map(b"".join)
PORTIONS = st.integers(1, 50)


def portions(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def parse(data: bytes, size: int) -> tuple[list[Frame | OversizedFrame], bytes]:
    reader = FrameReader()
    taken: list[Frame | OversizedFrame] = []
    for portion in portions(data, size):
        reader.feed(portion)
        while (frame := reader.next()) is not None:
            taken.append(frame)
    return taken, reader.unconsumed


@given(st.lists(st.builds(Frame, st.integers(0, 255), st.integers(0, 255), IDS, st.binary(max_size=50))), PORTIONS)
def test_what_is_encoded_is_read(sent: list[Frame], size: int) -> None:
    wire = b"".join(frames.encode(frame.type, frame.flags, frame.stream_id, frame.data) for frame in sent)
    assert parse(wire, size) == (sent, b"")


@given(WIRE, PORTIONS)
def test_portions_do_not_matter(wire: bytes, size: int) -> None:
    assert parse(wire, size) == parse(wire, max(len(wire), 1))


def feed_server(wire: bytes, size: int) -> tuple[ServerConnection, list[ServerEvent]]:
    connection, events = ServerConnection(), []
    for portion in portions(wire, size):
        connection.receive_data(portion)
        while (event := connection.next_event()) is not NEED_DATA:
            events.append(event)
    return connection, events


@given(WIRE, PORTIONS)
def test_a_server_connection_takes_anything(wire: bytes, size: int) -> None:
    """A stream that has begun and was not refused since is open, and can be answered."""
    connection, events = feed_server(wire, size)
    begun = [event.stream_id for event in events if isinstance(event, RequestReceived)]
    assert begun == sorted(set(begun))
    assert all(stream_id % 2 == 1 for stream_id in begun)
    waiting = set()
    for event in events:
        if isinstance(event, RequestReceived):
            waiting.add(event.stream_id)
        elif isinstance(event, StreamRefused):
            waiting.discard(event.stream_id)
    for stream_id in begun:
        assert connection.is_open(stream_id) == (stream_id in waiting)
        if connection.is_open(stream_id):
            assert connection.send_response(stream_id, b"x")
    try:
        connection.receive_eof()
    except RemoteProtocolError as error:
        assert "middle of a frame" in str(error)


@given(WIRE, PORTIONS)
def test_a_replayed_connection_goes_on_where_it_was(wire: bytes, size: int) -> None:
    connection, _ = feed_server(wire, size)
    for stream_id in connection.streaming():
        connection.refuse(stream_id, 14, "moving")
    if connection._reader.discarding:
        return
    waiting = [stream_id for stream_id in (1, 3, 5, 7, 0xFFFFFFFF) if connection.is_open(stream_id)]
    successor, events = feed_server(connection.replay(), size)
    assert [event.stream_id for event in events if isinstance(event, RequestReceived)] == waiting
    assert successor.replay() == connection.replay()


@given(WIRE, PORTIONS, st.lists(st.tuples(st.booleans(), st.booleans()), max_size=4))
def test_a_client_connection_takes_anything(wire: bytes, size: int, calls: list[tuple[bool, bool]]) -> None:
    connection = ClientConnection()
    begun = [connection.send_request(Request("s", "m"), unary=unary, closed=closed)[0] for unary, closed in calls]
    events: list[ClientEvent] = []
    for portion in portions(wire, size):
        connection.receive_data(portion)
        while (event := connection.next_event()) is not NEED_DATA:
            events.append(event)
    assert all(not hasattr(event, "stream_id") or event.stream_id in begun for event in events)


async def echo(call: Call, request: bytes) -> bytes:
    return request


async def count(call: Call, request: bytes) -> AsyncIterator[bytes]:
    for number in range(len(request)):
        yield b"%d" % number


async def total(call: Call, requests: AsyncIterator[bytes]) -> bytes:
    return b"%d" % len([request async for request in requests])


async def double(call: Call, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request * 2


def server() -> Server:
    methods = {
        "Echo": Method.unary(echo, bytes, bytes),
        "Count": Method.server_stream(count, bytes, bytes),
        "Total": Method.client_stream(total, bytes, bytes),
        "Double": Method.bidirectional(double, bytes, bytes),
    }
    return Server({"test.Test": methods}, Limits(calls=3, write_buffer=100, stream_buffer=10, patience=0))


@pytest.mark.anyio
@given(wire=WIRE, size=PORTIONS)
@BOUNDED
async def test_a_live_server_survives_anything(wire: bytes, size: int) -> None:
    """It answers in frames that are right, at most once a stream that it knew, and its other connection is fine."""
    serving = server()
    near, far = memory_pair()
    good, good_far = memory_pair()
    reader, answers = FrameReader(), []

    async def drain() -> None:
        async for data in near:
            reader.feed(data)
            while (frame := reader.next()) is not None:
                answers.append(frame)

    async with anyio.create_task_group() as group:
        group.start_soon(serving.serve_stream, far)
        group.start_soon(serving.serve_stream, good_far)
        group.start_soon(drain)
        async with Client(good) as client:
            for portion in portions(wire, size):
                await near.send(portion)
            assert await client.unary("test.Test", "Echo", b"alive") == b"alive"
        await turns()
        group.cancel_scope.cancel()
    await anyio.aclose_forcefully(near)
    assert reader.unconsumed == b""
    for frame in answers:
        assert isinstance(frame, Frame)
        assert frame.type in (2, 3)
        if frame.type == 2:
            Response.decode(frame.data)


@pytest.mark.anyio
@given(wire=WIRE, size=PORTIONS)
@BOUNDED
async def test_a_live_client_survives_anything(wire: bytes, size: int) -> None:
    """Whatever the server says, a call ends: with an answer, or with an error of this package."""
    near, far = memory_pair()
    outcomes: list[object] = []

    async def call(client: Client) -> None:
        try:
            outcomes.append(await client.unary("test.Test", "Echo", b"x"))
        except Exception as error:
            outcomes.append(error)

    async with Client(near) as client, anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(call, client)
        await turns()
        group.start_soon(swallow, far)
        for portion in portions(wire, size):
            await far.send(portion)
        await far.aclose()
    assert len(outcomes) == 3
    assert all(isinstance(one, bytes) or type(one).__module__ == "shimd.ttrpc.errors" for one in outcomes)


async def turns() -> None:
    """Let other tasks do what they can do without input."""
    for _ in range(30):
        await anyio.lowlevel.checkpoint()


async def swallow(stream: anyio.abc.ByteStream) -> None:
    try:
        async for _ in stream:
            pass
    except anyio.ClosedResourceError:
        pass
