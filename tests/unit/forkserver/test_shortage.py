"""A fork server, and its zygote, with as many descriptors open as they may have."""

import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from shimd.errors import ShimdError
from shimd.protocol.worker import Start
from shimd.supervisor.workers.fork_client import Worker
from tests.unit.engines.test_contract import SPINS
from tests.unit.forkserver.test_forkserver import EXIT, Server, started

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["zygote", "python"])
async def server(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Server]:
    async with started(tmp_path, request.param, monkeypatch, 120) as server:
        yield server


@contextmanager
def few(pid: int, left: int) -> Iterator[None]:
    """With no more than so many descriptors that a process can open."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = [number for number in range(max(taken) + left + 2) if number not in taken]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[left], limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


async def ends_with_7(server: Server, worker: Worker) -> None:
    worker.send(Start())
    await worker.exited.wait()
    assert worker.status == 7 << 8
    await server.forks.forget(worker)


async def test_few_descriptors_are_a_requests_error_and_no_apps(server: Server) -> None:
    """However few: what is asked for fails in a sentence, or works; nothing of it stays; and it recovers."""
    async with server.supervised():
        artifact = await server.compiled(EXIT)
        runs = await server.ready("runs", await server.compiled(SPINS))
        runs.send(Start())
        await server.forks.adopt()  # it has done all
        before, failed = server.descriptors(), 0
        for left in range(14):
            with few(server.pid, left):
                try:
                    worker = await server.ready(f"short {left}", artifact)
                except (ShimdError, AssertionError) as error:
                    assert "too many open files" in str(error)
                    failed += 1
                else:
                    await ends_with_7(server, worker)
            await ends_with_7(server, await server.ready(f"after {left}", artifact))
            assert server.descriptors() <= before, left
        assert failed
        assert runs.status is None
        with few(server.pid, 0):
            runs.signal(signal.SIGKILL)
            await runs.exited.wait()
        assert runs.status == signal.SIGKILL
        await server.forks.forget(runs)


async def test_a_supervisor_waits_until_there_is_a_descriptor_for_it(server: Server) -> None:
    async with server.supervised() as forks:
        worker = await server.ready("runs", await server.compiled(SPINS))
        worker.send(Start())
        await forks.adopt()  # it has done all
        before = server.descriptors()
    worker.close()
    while server.descriptors() >= before:  # noqa: ASYNC110 — until it has seen the first one go
        await anyio.sleep(0.01)
    with few(server.pid, 0):
        server.reconnect()
        assert server.forks._sock is not None
        with anyio.move_on_after(0.3) as waiting:
            await anyio.wait_readable(server.forks._sock)
        assert waiting.cancelled_caught
    async with server.supervised() as forks:
        (found,) = await forks.adopt()
        assert found.pid == worker.pid
        await forks.end(found)
