"""shimd.supervisor.children: programs that end by themselves, and others."""

import os
import signal
import subprocess
from pathlib import Path

import anyio
import pytest

from shimd.errors import Unavailable
from shimd.linux.pidfd import start_time
from shimd.supervisor.children import end_other, ended, run
from tests.unit.short import no_descriptors

pytestmark = pytest.mark.anyio
ENV = {"PATH": os.environ["PATH"]}


async def test_exit_codes_and_signals() -> None:
    assert await run(["/bin/sh", "-c", "exit 7"], ENV, 30) == 7
    assert await run(["/bin/sh", "-c", "kill -9 $$"], ENV, 30) == -9


async def test_what_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        await run(["/nowhere"], ENV, 30)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


async def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! $$ >{tmp_path}/pids; wait"
    with pytest.raises(Unavailable, match=r"^/bin/sh -c sleep 600.* has not ended within 0\.5 s, and was killed$"):
        await run(["/bin/sh", "-c", script], ENV, 0.5)
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    with anyio.fail_after(30):
        while any(map(alive, pids)):  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(0.01)


async def test_as_is_one_that_nobody_waits_for(tmp_path: Path) -> None:
    with anyio.move_on_after(0.3) as scope:
        await run(["/bin/sh", "-c", f"echo $$ >{tmp_path}/pid; exec sleep 600"], ENV, 30)
    assert scope.cancelled_caught
    assert not alive(int((tmp_path / "pid").read_text()))


def exits_with_7() -> int:
    return os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], ENV)


async def test_without_a_descriptor() -> None:
    pid = exits_with_7()
    with no_descriptors():
        assert await ended(pid) == 7


async def test_one_of_an_earlier_daemon_that_cannot_be_looked_at_is_left_alone() -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:  # noqa: ASYNC220
        start = start_time(process.pid)
        with no_descriptors(1):
            await end_other(process.pid, start, patience=0)
        await end_other(process.pid, 1, patience=0)
    assert process.returncode == 0


async def test_one_of_an_earlier_daemon_that_hangs_is_killed() -> None:
    with subprocess.Popen(["/bin/sleep", "600"]) as process:  # noqa: ASYNC220
        await end_other(process.pid, start_time(process.pid), patience=0)
    assert process.returncode == -signal.SIGKILL


async def test_one_that_another_has_buried() -> None:
    pid = exits_with_7()
    os.waitpid(pid, 0)  # noqa: ASYNC222 — it ends at once
    with no_descriptors():
        assert await ended(pid) == -signal.SIGKILL
