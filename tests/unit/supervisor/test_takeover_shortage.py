"""A takeover while something has run out: tasks wait for it, and none is given up."""

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shimd.linux.pidfd import start_time
from shimd.protocol.journal import EndpointRecord, ProcessRecord, TaskRecord
from shimd.supervisor import shortage
from shimd.supervisor.recovery import journal as journal_module
from shimd.supervisor.recovery.journal import Journal
from shimd.supervisor.recovery.recover import recover
from shimd.supervisor.task.state import State
from tests.unit.supervisor.test_lifecycle import SPEC
from tests.unit.supervisor.test_supervisor import running

pytestmark = pytest.mark.anyio
OF = EndpointRecord("wasmtime", "space", "", "")


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


async def test_descriptors_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: int) -> None:
    for name in ("RUNTIME", "STATE", "CACHE"):
        monkeypatch.setenv(f"SHIMD_{name}_DIR", str(tmp_path))
    monkeypatch.setattr(shortage, "_PAUSE", 0.01)
    (tmp_path / "config.json").write_text(json.dumps(SPEC))
    (tmp_path / "shimd.task").touch()
    init = ProcessRecord("", State.RUNNING.value, key="k", pid=sleeper, start=start_time(sleeper), alone=True)
    task = TaskRecord(OF.engine, OF.namespace, "", "", "app", str(tmp_path), processes=[init])
    Journal(tmp_path / "journal").write(task)
    missing = {"journal": 2, "config": 2}

    def lacks(what: str) -> None:
        missing[what] -= 1
        if missing[what] > 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def short(of: object, name: str, what: str) -> None:
        real = getattr(of, name)

        def act(*arguments: object) -> object:
            lacks(what)
            return real(*arguments)

        monkeypatch.setattr(of, name, act)

    short(journal_module, "_read", "journal")
    short(Path, "read_bytes", "config")
    async with running() as supervisor:
        await recover(supervisor)
        (endpoint,) = supervisor.endpoints.values()
        container = endpoint.service.containers["app"]
        assert (container.init.state, container.init.pid) == (State.RUNNING, sleeper)
        assert (missing["journal"], missing["config"]) < (1, 1)
