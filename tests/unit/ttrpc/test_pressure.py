"""Bounds: a peer that does not read, sends too much, or starts too many calls."""

from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
import pytest

from shimd.ttrpc import Call, Client, Code, Limits, Method, Server, Services, StatusError, frames
from shimd.ttrpc.frames import FrameType
from tests.unit.ttrpc.ttrpc_support import Connect, MakePair, all_kinds, answer, raw, read_frames, request, settled

pytestmark = pytest.mark.anyio

#: No waiting for peers that are slow, where a test wants to see them fail.
IMPATIENT = Limits(calls=4, write_buffer=1 << 16, stream_buffer=1 << 10, patience=0)
PATIENT = Limits(calls=4, write_buffer=1 << 16, stream_buffer=1 << 10, patience=3600)


async def test_a_client_that_does_not_read_stops_the_handlers(pair: MakePair) -> None:
    """What the handler makes is bounded by the write buffer and the kernel's; when the client reads, all comes."""
    made = 0

    async def pour(call: Call, request: bytes) -> AsyncIterator[bytes]:
        nonlocal made
        for _ in range(1000):
            made += 1
            yield bytes(1 << 14)

    near, far = await pair()
    async with anyio.create_task_group() as group:
        group.start_soon(
            Server({"test.Test": {"Pour": Method.server_stream(pour, raw, raw)}}, PATIENT).serve_stream, far
        )
        await near.send(request(1, "Pour", frames.REMOTE_CLOSED))
        assert 0 < await settled(lambda: made) < 100  # of 16 KiB
        taken = await read_frames(near, 1001)
        assert sum(len(frame.data) for frame in taken) == 1000 << 14
        await near.aclose()


async def test_a_client_that_does_not_read_stops_the_reading_of_its_requests(pair: MakePair) -> None:
    near, far = await pair()
    sent = 0
    answered = 0

    async def big(call: Call, request: bytes) -> bytes:
        nonlocal answered
        answered += 1
        return bytes(1 << 16)

    async def flood() -> None:
        nonlocal sent
        for stream_id in range(1, 4001, 2):
            await near.send(request(stream_id, "Big", payload=bytes(1000)))
            sent += 1

    async with anyio.create_task_group() as group:
        group.start_soon(Server({"test.Test": {"Big": Method.unary(big, raw, raw)}}, PATIENT).serve_stream, far)
        group.start_soon(flood)
        assert 0 < await settled(lambda: answered) < 50  # of 64 KiB
        assert sent < 1500
        taken = await read_frames(near, 2000)
        assert len({frame.stream_id for frame in taken}) == 2000
        await near.aclose()


async def test_a_stream_that_is_not_read_fails_and_the_others_go_on(connect: Connect) -> None:
    stuck = anyio.Event()

    async def deaf(call: Call, requests: AsyncIterator[bytes]) -> bytes:
        try:
            await anyio.sleep_forever()
        finally:
            stuck.set()
        return b""

    async def echo(call: Call, request: bytes) -> bytes:
        return request

    services: Services = {
        "test.Test": {"Deaf": Method.client_stream(deaf, raw, raw), "Echo": Method.unary(echo, raw, raw)}
    }
    async with connect(services, IMPATIENT) as client:
        async with await client.stream("test.Test", "Deaf", client_streaming=True) as stream:
            for _ in range(3):
                await stream.send(bytes(600))
            with pytest.raises(StatusError, match="RESOURCE_EXHAUSTED: data handling error: stream buffer full"):
                await stream.receive()
        await stuck.wait()
        assert await client.unary("test.Test", "Echo", b"alive") == b"alive"


async def test_a_slow_handler_slows_the_client(connect: Connect) -> None:
    """Nothing is lost, however slow the handler is."""

    async def slow(call: Call, requests: AsyncIterator[bytes]) -> bytes:
        number = 0
        async for _ in requests:
            number += 1
            await anyio.lowlevel.checkpoint()
        return b"%d" % number

    async with (
        connect({"test.Test": {"Slow": Method.client_stream(slow, raw, raw)}}, PATIENT) as client,
        await client.stream("test.Test", "Slow", client_streaming=True, server_streaming=False) as stream,
    ):
        for _ in range(500):
            await stream.send(bytes(1000))
        await stream.send_eof()
        assert await stream.receive() == b"500"


async def test_a_caller_that_does_not_read_its_stream_loses_it(connect: Connect) -> None:
    async with connect(all_kinds(), IMPATIENT) as client:
        async with await client.stream("test.Test", "Count", b"2000") as stream:
            while await client.unary("test.Test", "Echo", b"alive") == b"alive":
                if not client._connection.is_open(1):
                    break
            with pytest.raises(StatusError, match="RESOURCE_EXHAUSTED: stream buffer full"):
                async for _ in stream:
                    pass
        assert await client.unary("test.Test", "Echo", b"alive") == b"alive"


async def test_too_many_calls_at_once(pair: MakePair) -> None:
    near, far = await pair()
    async with anyio.create_task_group() as group:
        group.start_soon(Server(all_kinds(), IMPATIENT).serve_stream, far)
        await near.send(b"".join(request(stream_id, "Hang") for stream_id in range(1, 11, 2)))
        (frame,) = await read_frames(near, 1)
        stream_id, response = answer(frame)
        assert (stream_id, response.status.code) == (9, Code.RESOURCE_EXHAUSTED)
        await near.aclose()


async def test_more_calls_wait_for_their_turn(connect: Connect) -> None:
    at_work = most = 0

    async def work(call: Call, request: bytes) -> bytes:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await anyio.sleep(0.001)
        at_work -= 1
        return request

    async def ask(client: Client, number: int) -> None:
        assert await client.unary("test.Test", "Work", b"%d" % number) == b"%d" % number

    services: Services = {"test.Test": {"Work": Method.unary(work, raw, raw)}}
    async with connect(services, PATIENT) as client, anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(ask, client, number)
    assert most == PATIENT.calls


async def test_a_flood_of_broken_frames_starves_nobody(pair: MakePair, connect: Connect) -> None:
    server = Server(all_kinds(), PATIENT)
    near, far = await pair()

    async def flood() -> None:
        for _ in range(50):
            await near.send(frames.encode(FrameType.DATA, 0, 1, b"x") * 1000)
        await near.send_eof()

    async def drain() -> None:
        with suppress(anyio.BrokenResourceError):
            async for _ in near:
                pass

    async with connect(server) as client, anyio.create_task_group() as group:
        for task in (flood, drain):
            group.start_soon(task)
        group.start_soon(server.serve_stream, far)
        for _ in range(20):
            assert await client.unary("test.Test", "Echo", b"alive") == b"alive"
