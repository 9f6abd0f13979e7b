"""What happens when connections end, break, or carry nonsense."""

from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.abc import ByteStream

from shimd.ttrpc import (
    Call,
    Client,
    ConnectionClosed,
    LocalProtocolError,
    Method,
    RemoteProtocolError,
    Server,
    frames,
)
from shimd.ttrpc.envelope import Response, Status
from shimd.ttrpc.frames import FrameType
from tests.unit.ttrpc.ttrpc_support import Connect, MakePair, all_kinds, answer, eventually, raw, read_frames, request

pytestmark = pytest.mark.anyio


async def test_the_handler_is_cancelled_when_the_client_goes(pair: MakePair) -> None:
    started, ended = anyio.Event(), anyio.Event()

    async def wait(call: Call, request: bytes) -> bytes:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()
        return b""

    near, far = await pair()
    async with anyio.create_task_group() as group:
        group.start_soon(Server({"test.Test": {"Wait": Method.unary(wait, raw, raw)}}).serve_stream, far)
        await near.send(request(1, "Wait"))
        await started.wait()
        await near.aclose()
        await ended.wait()


async def test_a_handler_may_shield_itself(pair: MakePair) -> None:
    """serve_stream returns only when it is done."""
    started, go_on, steps = anyio.Event(), anyio.Event(), []

    async def careful(call: Call, request: bytes) -> bytes:
        with anyio.CancelScope(shield=True):
            started.set()
            await go_on.wait()
            steps.append("handler")
        return b""

    async def serve(stream: ByteStream) -> None:
        await Server({"test.Test": {"Careful": Method.unary(careful, raw, raw)}}).serve_stream(stream)
        steps.append("server")

    near, far = await pair()
    async with anyio.create_task_group() as group:
        group.start_soon(serve, far)
        await near.send(request(1, "Careful"))
        await started.wait()
        await near.aclose()
        await anyio.wait_all_tasks_blocked()
        assert steps == []
        go_on.set()
    assert steps == ["handler", "server"]


async def test_calls_fail_when_the_server_goes(pair: MakePair) -> None:
    near, far = await pair()
    failures = []

    async def call(client: Client) -> None:
        with pytest.raises(ConnectionClosed) as caught:
            await client.unary("test.Test", "Echo", b"")
        failures.append(str(caught.value))

    async with Client(near) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(call, client)
            group.start_soon(call, client)
            await read_frames(far, 2)
            await far.aclose()
        assert failures == ["the server closed the connection"] * 2
        await client.wait_closed()
        assert client.closed
        with pytest.raises(ConnectionClosed):
            await client.unary("test.Test", "Echo", b"")
        with pytest.raises(ConnectionClosed):
            await client.stream("test.Test", "Echo")


async def test_the_server_goes_in_the_middle_of_a_frame(pair: MakePair) -> None:
    near, far = await pair()

    async def half_an_answer() -> None:
        await read_frames(far, 1)
        await far.send(frames.encode(FrameType.RESPONSE, 0, 1, Response(payload=b"answer").encode())[:-1])
        await far.aclose()

    async with Client(near) as client, anyio.create_task_group() as group:
        group.start_soon(half_an_answer)
        with pytest.raises(ConnectionClosed, match="in the middle of a frame"):
            await client.unary("test.Test", "Echo", b"")


async def test_what_came_before_the_end_is_not_lost(pair: MakePair) -> None:
    near, far = await pair()
    async with Client(near) as client, await client.stream("test.Test", "Count") as stream:
        await read_frames(far, 1)
        async with anyio.create_task_group() as group:
            group.start_soon(far.send, frames.encode(FrameType.DATA, 0, 1, b"kept"))
        await far.aclose()
        await client.wait_closed()
        assert await stream.receive() == b"kept"
        with pytest.raises(ConnectionClosed):
            await stream.receive()


async def test_a_server_that_breaks_the_rules_fails_one_call(pair: MakePair) -> None:
    near, far = await pair()

    async def misbehave() -> None:
        await read_frames(far, 1)
        await far.send(frames.encode(FrameType.DATA, 0, 1, b"data") + frames.encode(FrameType.RESPONSE, 0, 77, b"who?"))
        await read_frames(far, 1)
        await far.send(frames.encode(FrameType.RESPONSE, 0, 3, Response(payload=b"fine").encode()))

    async with Client(near) as client, anyio.create_task_group() as group:
        group.start_soon(misbehave)
        with pytest.raises(RemoteProtocolError, match="data on a unary stream"):
            await client.unary("test.Test", "Echo", b"")
        assert await client.unary("test.Test", "Echo", b"") == b"fine"


async def test_an_exception_leaves_the_client_unwrapped(connect: Connect) -> None:
    """No ExceptionGroup, though the client runs tasks."""
    near_miss = ZeroDivisionError()
    with pytest.raises(BaseExceptionGroup) as caught:  # of the fixture's own task group
        async with connect(all_kinds()):
            raise near_miss
    assert caught.value.exceptions == (near_miss,)


async def test_leaving_the_client_cancels_nothing_else(connect: Connect) -> None:
    with anyio.move_on_after(0.05) as scope:
        async with connect(all_kinds()) as client:
            await client.unary("test.Test", "Hang", b"")
    assert scope.cancelled_caught


NONSENSE = {
    "another protocol": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": bytes(1000),
    "half a header": b"\0\0\0\1",
    "half a frame": request(1)[:-1],
    "oversized, then gone": (5 << 20).to_bytes(4, "big") + b"\0\0\0\1\1\0" + bytes(70000),
    "frames of unknown types": frames.encode(77, 255, 1, b"?") * 100,
    "garbage requests": b"".join(
        frames.encode(FrameType.REQUEST, 0, number, b"\xff" * 9) for number in range(1, 99, 2)
    ),
}


@pytest.mark.parametrize("name", NONSENSE)
async def test_nonsense_harms_nobody_else(pair: MakePair, connect: Connect, name: str) -> None:
    """A client of the same server, on another connection, notices nothing."""
    server = Server(all_kinds())
    async with connect(server) as client, anyio.create_task_group() as group:
        near, far = await pair()
        group.start_soon(server.serve_stream, far)
        async with await client.stream("test.Test", "Double", client_streaming=True) as stream:
            group.start_soon(drain, near)
            await near.send(NONSENSE[name])
            await stream.send(b"x")
            assert await stream.receive() == b"xx"
            await near.aclose()
        assert await client.unary("test.Test", "Echo", b"alive") == b"alive"


async def drain(stream: ByteStream) -> None:
    try:
        async for _ in stream:
            pass
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass


async def test_refusals_and_answers_share_a_connection(pair: MakePair) -> None:
    near, far = await pair()
    async with anyio.create_task_group() as group:
        group.start_soon(Server(all_kinds()).serve_stream, far)
        wire = request(1) + request(1) + request(2) + frames.encode(9, 0, 5, b"?") + request(7) + b"\0"
        group.start_soon(near.send, wire)
        answers = dict(answer(frame) for frame in await read_frames(near, 3))
        assert answers[1].status.message == "StreamID cannot be re-used and must increment"
        assert answers[2].status.message == "StreamID must be odd for client initiated streams"
        assert answers[7] == Response(payload=b"x")
        await near.aclose()


async def test_breaking_a_rule_ends_the_handler_of_that_stream(pair: MakePair) -> None:
    ended = anyio.Event()

    async def listen(call: Call, requests: AsyncIterator[bytes]) -> bytes:
        try:
            async for _ in requests:
                pass
            await anyio.sleep_forever()
        finally:
            ended.set()
        return b""

    near, far = await pair()
    async with anyio.create_task_group() as group:
        group.start_soon(Server({"test.Test": {"Listen": Method.client_stream(listen, raw, raw)}}).serve_stream, far)
        await near.send(request(1, "Listen", frames.REMOTE_OPEN))
        await near.send(frames.encode(FrameType.DATA, frames.REMOTE_CLOSED, 1, b"last"))
        await near.send(frames.encode(FrameType.DATA, 0, 1, b"after the last"))
        (frame,) = await read_frames(near, 1)
        assert answer(frame) == (1, Response(Status(3, "data handling error: stream is closed")))
        await ended.wait()
        await near.aclose()


async def test_detach_moves_a_connection_between_servers(pair: MakePair) -> None:
    """The client notices nothing: its calls begin anew at the successor, also one that was cut in the middle."""
    near, far = await pair()
    arrived = anyio.Event()

    async def old(call: Call, request: bytes) -> bytes:
        arrived.set()
        await anyio.sleep_forever()
        return b""

    async def new(call: Call, request: bytes) -> bytes:
        return b"new " + request

    first, second = ({"test.Test": {"Echo": Method.unary(handler, raw, raw)}} for handler in (old, new))
    async with anyio.create_task_group() as group:
        server = Server(first)
        session = server.open(far)
        group.start_soon(server.run, session)
        await near.send(request(1, payload=b"one") + request(3, payload=b"three") + request(5, payload=b"five")[:20])
        await arrived.wait()
        replay = await session.detach()
        successor = Server(second)
        group.start_soon(successor.run, successor.open(far, replay))
        group.start_soon(near.send, request(5, payload=b"five")[20:])
        answers = dict(answer(frame) for frame in await read_frames(near, 3))
        assert {number: response.payload for number, response in answers.items()} == {
            1: b"new one",
            3: b"new three",
            5: b"new five",
        }
        await near.aclose()


async def test_detach_refuses_streams(pair: MakePair) -> None:
    near, far = await pair()
    async with anyio.create_task_group() as group:
        server = Server(all_kinds())
        session = server.open(far)
        group.start_soon(server.run, session)
        await near.send(request(1, "Double", frames.REMOTE_OPEN))
        await read_frames(near, 1)
        replay: list[bytes] = []

        async def detach() -> None:
            replay.append(await session.detach())

        group.start_soon(detach)
        (frame,) = await read_frames(near, 1)
        assert answer(frame) == (1, Response(Status(14, "the connection moves to another process")))
    assert replay == [b""]
    await near.aclose()
    await far.aclose()


async def test_detach_of_a_connection_that_ended(pair: MakePair) -> None:
    near, far = await pair()
    server = Server(all_kinds())
    session = server.open(far)
    await near.aclose()
    await server.run(session)
    with pytest.raises(LocalProtocolError, match="ended"):
        await session.detach()


async def test_detach_within_an_oversized_frame(pair: MakePair) -> None:
    near, far = await pair()
    server = Server(all_kinds())
    async with anyio.create_task_group() as group:
        session = server.open(far)
        group.start_soon(server.run, session)
        await near.send(b"\0\x50\0\0" + b"\0\0\0\1\1\0" + bytes(10))
        await eventually(lambda: session._connection._reader.discarding)
        with pytest.raises(LocalProtocolError):
            await session.detach()
    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        await near.receive()
    await near.aclose()
