"""Sandboxers: worlds come out of them, and nothing stays behind, whatever becomes of them."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from shimd.errors import InvalidArgument, ShimdError
from shimd.oci import Mount
from shimd.protocol.messages import Plan
from shimd.supervisor.background import Background
from shimd.supervisor.workers import jailers as module
from shimd.supervisor.workers.jailers import Worlds

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
async def worlds() -> AsyncIterator[Worlds]:
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            worlds = Worlds(Background(tasks))
            yield worlds
            worlds.close()
            for pid in worlds.pids:
                os.waitpid(pid, 0)  # noqa: ASYNC222 — it ends


def plan(bundle: Path, *mounts: Mount, program: str = "/app.wasm") -> Plan:
    root = bundle / "rootfs"
    root.mkdir(exist_ok=True)
    (root / "app.wasm").write_bytes(b"\0asm")
    kinds = [{"type": kind} for kind in ("mount", "network", "ipc", "uts", "pid")]
    process = {"args": [program], "cwd": "/"}
    spec = {"root": {"path": "rootfs"}, "linux": {"namespaces": kinds}, "mounts": [*mounts], "process": process}
    return Plan(kind="init", bundle=str(bundle), spec=spec, process=process, rootfs=[])  # type: ignore[typeddict-item]


def mounts_of(pid: int | str) -> str:
    return Path(f"/proc/{pid}/mountinfo").read_text()


async def test_a_world_has_the_program_and_leaves_nothing(worlds: Worlds, tmp_path: Path) -> None:
    volume: Mount = {"destination": "/data", "type": "tmpfs", "source": "shimd-test-volume"}
    with await worlds.make(plan(tmp_path, volume)) as world:
        assert world.path == "/app.wasm"
        assert world.program is not None
        assert os.pread(world.program, 4, 0) == b"\0asm"
        assert any(os.readlink(f"/proc/self/fd/{fd}").startswith("mnt:") for fd in world.fds)
    (sandboxer,) = worlds.pids
    assert "shimd-test-volume" not in mounts_of("self") + mounts_of(sandboxer)
    for name in ("mnt", "net", "ipc", "uts"):
        assert os.readlink(f"/proc/{sandboxer}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")


def with_hooks(bundle: Path) -> Plan:
    found = plan(bundle)
    found["spec"]["hooks"] = {"createRuntime": [{"path": "/bin/true"}]}
    return found


async def test_with_hooks_it_is_held_and_the_nodes_files_are_in_sight(worlds: Worlds, tmp_path: Path) -> None:
    own = os.readlink("/proc/self/ns/mnt")
    with await worlds.make(with_hooks(tmp_path)) as world:
        (sandboxer,) = worlds.pids
        assert os.readlink(f"/proc/{sandboxer}/ns/mnt") != own
        assert Path(f"/proc/{sandboxer}/root/{__file__}").exists()
        await world.finish()
        assert os.readlink(f"/proc/{sandboxer}/ns/mnt") == own
    assert worlds.pids == [sandboxer]


async def test_hooks_keep_no_others_waiting(worlds: Worlds, tmp_path: Path) -> None:
    """However many are held; and whoever is not wanted any more is ended."""
    with ExitStack() as held:
        for _ in range(module._MOST + 2):
            held.enter_context(await worlds.make(with_hooks(tmp_path)))
        assert worlds._at_work() == 0
        assert len(worlds.pids) == module._MOST + 2
    assert worlds.pids == []


async def test_what_fails_meanwhile_is_the_error(worlds: Worlds, tmp_path: Path) -> None:
    """And the world, whose maker is ended, is gone."""

    async def fail() -> None:
        raise InvalidArgument("the cgroup cannot be made")

    (await worlds.make(plan(tmp_path))).__exit__(None, None, None)
    (first,) = worlds.pids
    with pytest.raises(InvalidArgument, match="the cgroup"):
        await worlds.make(plan(tmp_path), None, fail)
    with await worlds.make(plan(tmp_path)) as world:
        assert world.program is not None
    (second,) = worlds.pids
    assert second != first


async def settled(sandboxer: int) -> int:
    """How many descriptors it has open once it waits for work: it closes after it has answered."""
    while "S (sleeping)" not in Path(f"/proc/{sandboxer}/status").read_text():  # noqa: ASYNC110
        await anyio.sleep(0.01)
    return len(os.listdir(f"/proc/{sandboxer}/fd"))


async def test_descriptors_do_not_pile_up(worlds: Worlds, tmp_path: Path) -> None:
    for _ in range(3):
        (await worlds.make(plan(tmp_path))).__exit__(None, None, None)
    (sandboxer,) = worlds.pids
    before = await settled(sandboxer)
    bad: Mount = {"destination": "/x", "type": "bind", "source": "/nowhere", "options": ["bind"]}
    for _ in range(5):
        (await worlds.make(plan(tmp_path))).__exit__(None, None, None)
        with pytest.raises(InvalidArgument, match="mount /x: source /nowhere: no such file"):
            await worlds.make(plan(tmp_path, bad))
    assert worlds.pids == [sandboxer]
    assert await settled(sandboxer) == before


async def test_a_program_that_is_not_there(worlds: Worlds, tmp_path: Path) -> None:
    with await worlds.make(plan(tmp_path, program="other.wasm")) as world:
        assert (world.program, world.path) == (None, "/other.wasm")
        assert world.missing == "other.wasm: executable file not found in $PATH"


async def test_a_spec_that_is_none(worlds: Worlds, tmp_path: Path) -> None:
    broken = plan(tmp_path)
    del broken["spec"]["root"]
    with pytest.raises(ShimdError, match="KeyError: 'root'"):
        await worlds.make(broken)
    (await worlds.make(plan(tmp_path))).__exit__(None, None, None)  # it goes on


async def test_one_that_is_killed_is_replaced(worlds: Worlds, tmp_path: Path) -> None:
    (await worlds.make(plan(tmp_path))).__exit__(None, None, None)
    (sandboxer,) = worlds.pids
    os.kill(sandboxer, signal.SIGKILL)
    os.waitid(os.P_PID, sandboxer, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 — it is dying
    (await worlds.make(plan(tmp_path))).__exit__(None, None, None)
    assert worlds.pids != [sandboxer]


async def test_one_that_dies_at_its_work_is_told_of(worlds: Worlds, tmp_path: Path) -> None:
    (await worlds.make(plan(tmp_path))).__exit__(None, None, None)
    (sandboxer,) = worlds.pids
    os.kill(sandboxer, signal.SIGSTOP)
    with pytest.raises(ShimdError, match="the sandboxer died"):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_kill, sandboxer)
            try:
                await worlds.make(plan(tmp_path))
            except ShimdError as error:
                caught = error
        raise caught
    (await worlds.make(plan(tmp_path))).__exit__(None, None, None)


async def _kill(pid: int) -> None:
    await anyio.wait_all_tasks_blocked()
    os.kill(pid, signal.SIGKILL)


async def test_others_go_on_without_one_that_hangs(
    worlds: Worlds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST", 1)
    monkeypatch.setattr(module, "_HANGS", 0.2)
    (await worlds.make(plan(tmp_path))).__exit__(None, None, None)
    (sandboxer,) = worlds.pids
    os.kill(sandboxer, signal.SIGSTOP)  # as if a volume did not answer
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worlds.make, plan(tmp_path))
        await anyio.wait_all_tasks_blocked()
        (await worlds.make(plan(tmp_path))).__exit__(None, None, None)
        tasks.cancel_scope.cancel()  # the client gives up: nobody knows what that sandboxer is at
    assert sandboxer not in worlds.pids
