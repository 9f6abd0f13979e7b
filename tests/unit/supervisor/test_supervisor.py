"""Endpoints: whose error a shortage is."""

import errno
from pathlib import Path

import anyio
import pytest

from shimd.protocol.journal import EndpointRecord, Record
from shimd.supervisor.supervisor import Supervisor

pytestmark = pytest.mark.anyio


async def test_an_endpoint_of_an_earlier_supervisor_is_served_recorded_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose apps go on; one that is new is an error of who asks."""
    for name in ("RUNTIME", "STATE", "CACHE"):
        monkeypatch.setenv(f"SHIMD_{name}_DIR", str(tmp_path))

    def full(record: Record) -> None:
        raise OSError(errno.ENOSPC, "no space")

    earlier, other = (EndpointRecord("wasmtime", name, "", "") for name in ("a", "b"))
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            supervisor = Supervisor(tasks, tasks)
            monkeypatch.setattr(supervisor.journal, "write", full)
            endpoint = supervisor.earlier_endpoint(earlier)
            await supervisor.serve_earlier()
            assert endpoint.path.is_socket()
            with pytest.raises(OSError, match="no space"):
                await supervisor.endpoint(other)
            tasks.cancel_scope.cancel()
