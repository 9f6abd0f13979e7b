"""Endpoints: whose error a shortage is, and how long they are there."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from shimd.api.containerd.events import TaskDelete
from shimd.protocol.journal import EndpointRecord, Record
from shimd.supervisor.supervisor import Supervisor

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNTIME", "STATE", "CACHE"):
        monkeypatch.setenv(f"SHIMD_{name}_DIR", str(tmp_path))


@asynccontextmanager
async def running() -> AsyncIterator[Supervisor]:
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            supervisor = Supervisor(tasks, tasks)
            yield supervisor
            tasks.cancel_scope.cancel()


async def test_an_endpoint_of_an_earlier_supervisor_is_served_recorded_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose apps go on; one that is new is an error of who asks."""

    def full(record: Record) -> None:
        raise OSError(errno.ENOSPC, "no space")

    earlier, other = (EndpointRecord("wasmtime", name, "", "") for name in ("a", "b"))
    async with running() as supervisor:
        monkeypatch.setattr(supervisor.journal, "write", full)
        endpoint = supervisor.earlier_endpoint(earlier)
        await supervisor.serve_earlier()
        assert endpoint.path.is_socket()
        with pytest.raises(OSError, match="no space"):
            await supervisor.endpoint(other)


async def test_what_nobody_has_to_do_with_is_forgotten(tmp_path: Path) -> None:
    """Also by the journal; who comes again finds it again."""
    used, unused = (EndpointRecord("wasmtime", name, "", "") for name in ("used", "unused"))
    async with running() as supervisor:
        for record in (used, unused):
            await supervisor.endpoint(record)
        one = await supervisor.endpoint(used)
        other = await supervisor.endpoint(unused)
        one.connections.announce()
        supervisor.forget_unused()
        assert list(supervisor.endpoints.values()) == [one]
        assert list(supervisor.journal.read()) == [used]
        assert (one.path.is_socket(), other.path.exists()) == (True, False)
        again = await supervisor.endpoint(unused)
        await anyio.wait_all_tasks_blocked()
        assert again is not other
        async with await anyio.connect_unix(again.path):
            pass


async def test_events_that_were_not_taken_keep_it_needed(tmp_path: Path) -> None:
    async with running() as supervisor:
        await supervisor.endpoint(EndpointRecord("wasmtime", "default", "", ""))
        assert not supervisor.is_needed
        supervisor.bus.publish(str(tmp_path / "nobody.sock"), "default", TaskDelete(container_id="app"))
        assert supervisor.is_needed
