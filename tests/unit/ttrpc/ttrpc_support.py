"""Services, joined pairs of streams, and frames for the tests of ttrpc."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
from anyio.abc import ByteStream

from shimd.ttrpc import Call, Client, Method, Services, StatusError, frames
from shimd.ttrpc.envelope import Request, Response
from shimd.ttrpc.frames import Frame, FrameReader, FrameType

Pair = tuple[ByteStream, ByteStream]
MakePair = Callable[[], Awaitable[Pair]]
Connect = Callable[..., AbstractAsyncContextManager[Client]]


async def socket_pair(directory: Path) -> Pair:
    listener = await anyio.create_unix_listener(directory / "pair.sock")
    async with listener:
        near = await anyio.connect_unix(directory / "pair.sock")
        return near, await listener.accept()


def raw(data: bytes) -> bytes:
    return data


async def echo(call: Call, request: bytes) -> bytes:
    return request


async def fail(call: Call, request: bytes) -> bytes:
    raise StatusError(5, "no such thing")


async def crash(call: Call, request: bytes) -> bytes:
    raise ZeroDivisionError("a bug")


async def hang(call: Call, request: bytes) -> bytes:
    await anyio.sleep_forever()
    return b""


async def count(call: Call, request: bytes) -> AsyncIterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number


async def total(call: Call, requests: AsyncIterator[bytes]) -> bytes:
    return b"%d" % sum([int(request) async for request in requests])


async def double(call: Call, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request * 2


def all_kinds() -> Services:
    """One service with a method of every kind; messages are plain bytes."""
    return {
        "test.Test": {
            "Echo": Method.unary(echo, raw, raw),
            "Fail": Method.unary(fail, raw, raw),
            "Crash": Method.unary(crash, raw, raw),
            "Hang": Method.unary(hang, raw, raw),
            "Count": Method.server_stream(count, raw, raw),
            "Total": Method.client_stream(total, raw, raw),
            "Double": Method.bidirectional(double, raw, raw),
        }
    }


def request(stream_id: int, method: str = "Echo", flags: int = 0, payload: bytes = b"x") -> bytes:
    return frames.encode(FrameType.REQUEST, flags, stream_id, Request("test.Test", method, payload).encode())


async def read_frames(stream: ByteStream, number: int) -> list[Frame]:
    reader = FrameReader()
    taken: list[Frame] = []
    while len(taken) < number:
        reader.feed(await stream.receive())
        while isinstance(frame := reader.next(), Frame):
            taken.append(frame)
    assert len(taken) == number
    return taken


def answer(frame: Frame) -> tuple[int, Response]:
    assert frame.type == FrameType.RESPONSE
    return frame.stream_id, Response.decode(frame.data)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until what another task, or the kernel, is about to do is done."""
    while not condition():  # noqa: ASYNC110
        await anyio.sleep(0.005)


async def settled(count: Callable[[], int]) -> int:
    """Wait until a count has stopped changing, and give it."""
    last, same = -1, 0
    while same < 5:
        await anyio.sleep(0.01)
        same, last = (same + 1, last) if count() == last else (0, count())
    return last
