"""Workers whose fork server is gone, while this process is short of something."""

import errno
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import anyio
import pytest

from shimd.linux.pidfd import start_time
from shimd.supervisor.background import Background
from shimd.supervisor.workers import orphans
from shimd.supervisor.workers.fork_client import Worker
from shimd.supervisor.workers.fork_servers import ForkServers
from tests.unit.short import no_descriptors

pytestmark = pytest.mark.anyio


@pytest.fixture
async def servers() -> AsyncIterator[ForkServers]:
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            yield ForkServers(Background(tasks))
            tasks.cancel_scope.cancel()


@contextmanager
def orphan(servers: ForkServers) -> Iterator[Worker]:
    process = subprocess.Popen(["/bin/sleep", "600"])
    try:
        yield servers.orphan("key", process.pid, start_time(process.pid))
    finally:
        process.kill()
        process.returncode = 0  # it has been waited for


async def test_without_a_descriptor_it_is_followed_all_the_same(servers: ForkServers) -> None:
    with orphan(servers) as worker:
        with no_descriptors():
            await anyio.wait_all_tasks_blocked()
        worker.signal(signal.SIGTERM)
        await worker.exited.wait()
        assert worker.status == signal.SIGTERM


async def test_without_memory_for_a_watch_it_is_followed_later(
    servers: ForkServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, short = anyio.wait_readable, True

    async def wait_readable(fd: int) -> None:
        if short:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        await real(fd)

    monkeypatch.setattr(anyio, "wait_readable", wait_readable)
    monkeypatch.setattr(orphans, "_LATER", 0.001)
    with orphan(servers) as worker:
        await anyio.sleep(0.01)
        short = False
        worker.signal(signal.SIGTERM)
        await worker.exited.wait()
        assert worker.status == signal.SIGTERM


async def test_its_descriptor_is_open_until_nobody_waits_by_it(servers: ForkServers) -> None:
    """Its fork server may tell after all, and be heard first."""
    with orphan(servers) as worker:
        await anyio.wait_all_tasks_blocked()
        pidfd = worker.pidfd
        worker.gone(7, 1)
        assert worker.pidfd == pidfd
        os.kill(worker.pid, signal.SIGTERM)
        while worker.pidfd is not None:  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(0.01)
        assert worker.status == 7
