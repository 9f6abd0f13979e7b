"""Whatever this process ignores and blocks: what it starts for others begins with all signals at their defaults."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from shimd import zygote
from shimd.protocol.plans import HookCommand, NativeCommand
from shimd.protocol.system_calls import of_host
from shimd.protocol.worker import Start
from shimd.supervisor import children
from shimd.supervisor.recovery import alone
from shimd.supervisor.task.logger import Logger
from tests.unit.engines.test_contract import SPINS
from tests.unit.forkserver.test_forkserver import Server

pytestmark = pytest.mark.anyio
CLEAN = {"SigBlk": 0, "SigIgn": 0}
#: 32 and 33, which posix_spawn(3) of glibc leaves ignored.
C_LIBRARYS = 3 << 31
SHOW = "grep -E '^Sig(Blk|Ign)' /proc/self/status"
ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture(autouse=True)
def odd() -> Iterator[None]:
    """As a daemon may be that somebody started in the background; Python itself ignores SIGPIPE and SIGXFSZ."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGPIPE, signal.SIGTERM])
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.signal(signal.SIGUSR1, before[0])
    signal.signal(signal.SIGHUP, before[1])


def signals(status: str) -> dict[str, int]:
    lines = [line.split(":") for line in status.splitlines()]
    return {name: int(value, 16) for name, value in lines if name in CLEAN}


def of_process(pid: int) -> dict[str, int]:
    return signals(Path(f"/proc/{pid}/status").read_text())


def without_c_librarys(status: Path) -> dict[str, int]:
    return {name: mask & ~C_LIBRARYS for name, mask in signals(status.read_text()).items()}


async def test_a_runtime_that_is_asked_for_something(tmp_path: Path) -> None:
    assert await children.run(["/bin/sh", "-c", f"{SHOW} >{tmp_path}/status"], ENV, 30) == 0
    assert without_c_librarys(tmp_path / "status") == CLEAN


async def test_a_log_program(tmp_path: Path) -> None:
    program = tmp_path / "logger"
    program.write_text(f"#!/bin/sh\n{SHOW} >{tmp_path}/status\nexec 5>&-\nexec cat <&3 >/dev/null\n")
    program.chmod(0o755)
    logger = await Logger.start(f"binary://{program}", "c", "default")
    os.close(logger.stdout)
    os.close(logger.stderr)
    await logger.close()
    assert without_c_librarys(tmp_path / "status") == CLEAN


async def test_a_child_where_no_keeper_is(tmp_path: Path) -> None:
    pid = alone.spawn(["/bin/sh", "-c", f"{SHOW} >{tmp_path}/status"], ENV, {})
    assert await children.ended(pid) == 0
    assert without_c_librarys(tmp_path / "status") == CLEAN


@asynccontextmanager
async def fork_server(directory: Path) -> AsyncIterator[Server]:
    server = Server(directory)
    try:
        with anyio.fail_after(60):
            yield server
    finally:
        os.close(server.null)
        os.kill(server.pid, signal.SIGKILL)
        os.waitpid(server.pid, 0)  # noqa: ASYNC222 — it is dead


@pytest.mark.parametrize("kind", ["a runtime", "a hook"])
async def test_what_a_worker_becomes(tmp_path: Path, kind: str) -> None:
    """A runtime's containers and execs inherit its signals, and a pod's first process comes to be in the same way."""
    words = ["/bin/sh", "-c", f"{SHOW} >{tmp_path}/status"]
    hook = HookCommand({"path": words[0], "args": words, "env": [f"PATH={ENV['PATH']}"]})
    async with fork_server(tmp_path) as server, server.supervised() as forks:
        if kind == "a hook":
            calls = os.memfd_create("calls")
            os.write(calls, of_host().packed())
            worker = await forks.spawn("a", hook, (server.null,) * 3, jail=[calls])
            os.close(calls)
        else:
            worker = await forks.spawn("a", NativeCommand(str(tmp_path), words), (server.null,) * 3)
        await worker.becomes_another()
        await worker.exited.wait()
        assert signals((tmp_path / "status").read_text()) == CLEAN, worker.status
        await forks.forget(worker)


@pytest.mark.parametrize("python", ["no", "yes"])
async def test_a_guest(tmp_path: Path, python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIMD_ZYGOTE", "no" if python == "yes" else "yes")
    zygote.available.cache_clear()
    async with fork_server(tmp_path) as server, server.supervised() as forks:
        worker = await server.ready("a", await server.compiled(SPINS))
        worker.send(Start())
        assert of_process(worker.pid) == CLEAN
        await forks.end(worker)
    zygote.available.cache_clear()
