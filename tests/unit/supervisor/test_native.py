"""What a native runtime leaves behind, where something is short."""

import os
import signal
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from anyio.abc import SocketListener

from shimd.errors import Unavailable
from shimd.protocol.plans import NativeCommand
from shimd.supervisor.task import native as module
from shimd.supervisor.task.native import Native, _accepted, _console
from shimd.supervisor.task.options import Options
from shimd.supervisor.task.process import Process
from shimd.supervisor.task.stdio import Streams
from shimd.supervisor.workers.fork_client import Worker

pytestmark = pytest.mark.anyio


class Short:
    """A listener for whose connection there is no descriptor at first."""

    def __init__(self) -> None:
        self.errors: list[Exception] = [anyio.BrokenResourceError(), OSError(24, "Too many open files")]

    async def accept(self) -> str:
        if self.errors:
            raise self.errors.pop()
        return "a connection"


async def test_a_terminal_waits_for_a_descriptor() -> None:
    accepted: Any = await _accepted(cast(SocketListener, Short()))
    assert accepted == "a connection"


async def test_a_terminal_is_inherited_by_nobody(tmp_path: Path) -> None:
    """Its end would never come otherwise: not before the last program that was started after it."""
    attached: list[int] = []
    process: Any = SimpleNamespace(
        stdio=SimpleNamespace(attach=attached.append), streams=SimpleNamespace(terminal=True)
    )
    async with _console(process, tmp_path) as arguments:
        with socket.socket(socket.AF_UNIX) as runtime:
            runtime.connect(arguments[1])
            socket.send_fds(runtime, [b"/dev/ptmx"], [0])
    assert not os.get_inheritable(attached[0])
    os.close(attached[0])


class Unfollowed(Native):
    """The runtime does its work, and then the fork server has no descriptor to follow the process by."""

    async def _become(self, process: Process, plan: NativeCommand, scratch: Path, pid_file: Path) -> Worker:
        self.left = subprocess.Popen(["/bin/sleep", "600"])  # noqa: ASYNC220
        pid_file.write_text(str(self.left.pid))
        raise Unavailable("too many open files")


async def test_a_process_that_cannot_be_followed_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exec's would go on, with nobody who knows of it."""
    monkeypatch.setenv("SHIMD_RUNTIME_DIR", str(tmp_path))
    spec: Any = {"root": {"path": "rootfs"}}
    context: Any = SimpleNamespace(namespace="default")
    native = Unfollowed(context, "c", tmp_path, spec, Options(runtime="sh"))
    process = Process.added("exec", cast(Any, {"args": ["a"]}), Streams())
    process.stdio = cast(Any, SimpleNamespace(fds=(0, 1, 2)))
    with pytest.raises(Unavailable, match="too many open files"):
        await native.exec(process)
    assert native.left.wait(30) == -signal.SIGKILL


async def test_a_runtime_whose_delete_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed, and what it keeps is removed without it: the container is gone all the same."""
    monkeypatch.setattr(module, "_DELETE_LIMIT", 0.2)
    monkeypatch.setenv("SHIMD_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("SHIMD_RUNTIME_DIR", str(tmp_path))
    runtime = tmp_path / "hangs"
    runtime.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\nexec sleep 600\n")
    runtime.chmod(0o755)
    spec: Any = {"root": {"path": "rootfs"}}
    context: Any = SimpleNamespace(namespace="default")
    native = Native(context, "c", tmp_path, spec, Options(runtime=str(runtime)))
    native.state.mkdir(parents=True)
    await native.delete(forget=True)
    assert not native.state.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
