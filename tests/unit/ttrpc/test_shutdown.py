"""Listeners, and the end of a server."""

import errno
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, Listener, TaskGroup

from shimd.ttrpc import Call, Client, ConnectionClosed, Method, Server, Services, StatusError
from tests.unit.ttrpc.ttrpc_support import raw, request

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def listening(server: Server, path: Path) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, await anyio.create_unix_listener(path))
        yield


class Gate:
    """A handler that waits to be let go."""

    def __init__(self) -> None:
        self.entered, self.open = anyio.Event(), anyio.Event()

    async def handle(self, call: Call, request: bytes) -> bytes:
        self.entered.set()
        await self.open.wait()
        return b"done"

    def services(self) -> Services:
        return {"test.Test": {"Wait": Method.unary(self.handle, raw, raw)}}


async def test_calls_at_work_may_end(tmp_path: Path) -> None:
    gate = Gate()
    server = Server(gate.services())
    answers = []

    async def call(client: Client) -> None:
        answers.append(await client.unary("test.Test", "Wait", b""))

    async with (
        listening(server, tmp_path / "s"),
        Client(await anyio.connect_unix(tmp_path / "s")) as client,
        Client(await anyio.connect_unix(tmp_path / "s")) as idle,
        anyio.create_task_group() as group,
    ):
        group.start_soon(call, client)
        await gate.entered.wait()
        group.start_soon(server.shutdown, 3600)
        await idle.wait_closed()
        with pytest.raises(StatusError, match="UNAVAILABLE: server is shutting down"):
            await client.unary("test.Test", "Wait", b"")
        with pytest.raises(OSError):
            await anyio.connect_unix(tmp_path / "s")
        gate.open.set()
        await client.wait_closed()
    assert answers == [b"done"]


async def test_calls_that_do_not_end_are_cancelled(tmp_path: Path) -> None:
    gate = Gate()
    server = Server(gate.services())
    async with (
        listening(server, tmp_path / "s"),
        Client(await anyio.connect_unix(tmp_path / "s")) as client,
        anyio.create_task_group() as group,
    ):

        async def call() -> None:
            with pytest.raises(ConnectionClosed):
                await client.unary("test.Test", "Wait", b"")

        group.start_soon(call)
        await gate.entered.wait()
        await server.shutdown(0)


async def test_shutdown_waits_for_a_shielded_handler(tmp_path: Path) -> None:
    gate, steps = Gate(), []

    async def careful(call: Call, request: bytes) -> bytes:
        with anyio.CancelScope(shield=True):
            await gate.handle(call, request)
            steps.append("handler")
        return b""

    server = Server({"test.Test": {"Wait": Method.unary(careful, raw, raw)}})

    async def shutdown() -> None:
        await server.shutdown(0)
        steps.append("shutdown")

    async with listening(server, tmp_path / "s"), await anyio.connect_unix(tmp_path / "s") as stream:
        await stream.send(request(1, "Wait"))
        await gate.entered.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(shutdown)
            await anyio.wait_all_tasks_blocked()
            gate.open.set()
    assert steps == ["handler", "shutdown"]


async def test_nothing_is_served_after_shutdown(tmp_path: Path) -> None:
    server = Server({})
    await server.shutdown(0)
    listener = await anyio.create_unix_listener(tmp_path / "s")
    await server.serve(listener)
    with pytest.raises(OSError):
        await anyio.connect_unix(tmp_path / "s")


async def test_a_peer_that_does_not_read_cannot_delay_the_end(tmp_path: Path) -> None:
    async def pour(call: Call, request: bytes) -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 16)

    server = Server({"test.Test": {"Pour": Method.server_stream(pour, raw, raw)}})
    async with listening(server, tmp_path / "s"), await anyio.connect_unix(tmp_path / "s") as stream:
        await stream.send(request(1, "Pour", 1))
        await anyio.wait_all_tasks_blocked()
        await server.shutdown(0)


#: A server that comes to the end of its descriptors: it may open 24, and has some already.
SHORT = """
import logging, resource, sys, anyio
from shimd.ttrpc import Method, Server

async def echo(call, request):
    return request

async def main(path):
    resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
    server = Server({"test.Test": {"Echo": Method.unary(echo, bytes, bytes)}})
    listener = await anyio.create_unix_listener(path)
    print(flush=True)
    await server.serve(listener)

logging.basicConfig(format="%(message)s")
anyio.run(main, sys.argv[1])
"""


async def test_a_shortage_of_descriptors_passes(tmp_path: Path) -> None:
    """Who has a connection is served, who comes waits, one sentence is logged; and all are served when it is over."""
    path = tmp_path / "s"
    async with await anyio.open_process([sys.executable, "-c", SHORT, str(path)], stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        await process.stdout.receive()
        streams = [await anyio.connect_unix(path) for _ in range(40)]
        said = await process.stderr.receive()
        async with Client(streams[0]) as first:
            assert await first.unary("test.Test", "Echo", b"a") == b"a"
            await anyio.sleep(0.3)  # it tries again a few times
            for stream in streams[1:30]:
                await stream.aclose()
            for stream in streams[30:]:
                async with Client(stream) as client:
                    assert await client.unary("test.Test", "Echo", b"b") == b"b"
        process.terminate()
        said += b"".join([part async for part in process.stderr])
    sentences = said.decode().splitlines()
    assert sentences[0] == "cannot accept connections of ttrpc for now: [Errno 24] Too many open files"
    assert sentences[1] == "connections of ttrpc are accepted again"
    assert len(sentences) <= 6, "a pair a shortage, of which there may be two or three while connections close"


class Flaky(Listener[ByteStream]):
    """A listener whose accept fails a few times, in one way or the other."""

    def __init__(self, listener: Listener[Any], errors: list[Exception]) -> None:
        self._listener, self._errors = listener, errors

    async def serve(self, handler: Callable[[ByteStream], Any], task_group: TaskGroup | None = None) -> None:
        if self._errors:
            raise self._errors.pop()
        await self._listener.serve(handler, task_group)

    async def aclose(self) -> None:
        await self._listener.aclose()

    @property
    def extra_attributes(self) -> dict[Any, Any]:
        return {}


async def test_no_error_of_accept_ends_the_loop(tmp_path: Path) -> None:
    gate = Gate()
    gate.open.set()
    server = Server(gate.services())
    errors: list[Exception] = [OSError(errno.EBADF, "no"), anyio.BrokenResourceError(), OSError(errno.EPROTO, "no")]
    listener = Flaky(await anyio.create_unix_listener(tmp_path / "s"), errors)
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, listener)
        async with Client(await anyio.connect_unix(tmp_path / "s")) as client:
            assert await client.unary("test.Test", "Wait", b"") == b"done"
        await server.shutdown(0)


async def test_a_listener_that_was_closed_is_the_end(tmp_path: Path) -> None:
    listener = await anyio.create_unix_listener(tmp_path / "s")
    await listener.aclose()
    await Server({}).serve(listener)
