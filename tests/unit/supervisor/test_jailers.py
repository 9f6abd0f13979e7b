"""Jailers: jailers come out of them, and nothing stays behind, whatever becomes of them."""

import hashlib
import os
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import cast

import anyio
import pytest

from shimd.errors import InvalidArgument, ShimdError, Unavailable
from shimd.oci import Mount, Spec
from shimd.protocol.plans import NewJail
from shimd.supervisor.background import Background
from shimd.supervisor.workers import jailers as module
from shimd.supervisor.workers.jailers import Jailers
from tests.unit.short import no_descriptors
from tests.unit.supervisor.hung import hung_file

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
async def jailers() -> AsyncIterator[Jailers]:
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            jailers = Jailers(Background(tasks))
            yield jailers
            jailers.close()
            for pid in jailers.pids:
                os.waitpid(pid, 0)  # noqa: ASYNC222 — it ends


def plan(bundle: Path, *mounts: Mount, program: str = "/app.wasm") -> NewJail:
    root = bundle / "rootfs"
    root.mkdir(exist_ok=True)
    (root / "app.wasm").write_bytes(b"\0asm")
    kinds = [{"type": kind} for kind in ("mount", "network", "ipc", "uts", "pid")]
    process = {"args": [program], "cwd": "/"}
    spec = {"root": {"path": "rootfs"}, "linux": {"namespaces": kinds}, "mounts": [*mounts], "process": process}
    return NewJail(str(bundle), cast(Spec, spec), [], [], None, terminal=False)


def mounts_of(pid: int | str) -> str:
    return Path(f"/proc/{pid}/mountinfo").read_text()


async def test_a_jail_has_the_program_and_leaves_nothing(jailers: Jailers, tmp_path: Path) -> None:
    volume: Mount = {"destination": "/data", "type": "tmpfs", "source": "shimd-test-volume"}
    with await jailers.make(plan(tmp_path, volume)) as jail:
        assert jail.path == "/app.wasm"
        assert jail.program is not None
        assert os.pread(jail.program, 4, 0) == b"\0asm"
        assert any(os.readlink(f"/proc/self/fd/{fd}").startswith("mnt:") for fd in jail.fds)
    (jailer,) = jailers.pids
    assert "shimd-test-volume" not in mounts_of("self") + mounts_of(jailer)
    for name in ("mnt", "net", "ipc", "uts"):
        assert os.readlink(f"/proc/{jailer}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")


async def test_a_small_program_comes_with_its_hash(jailers: Jailers, tmp_path: Path) -> None:
    small = b"\0asm" + bytes((1 << 20) - 4)
    for program, digest in {
        small: hashlib.sha256(small).hexdigest(),
        small + b"\0": "",
        b"\x7fELF": "",  # no engine runs it
        b"": hashlib.sha256().hexdigest(),
    }.items():
        found = plan(tmp_path)
        (tmp_path / "rootfs/app.wasm").write_bytes(program)
        with await jailers.make(found) as jail:
            assert jail.digest == digest
            assert jail.program is not None
    with await jailers.make(plan(tmp_path, program="/missing.wasm")) as jail:
        assert (jail.program, jail.digest) == (None, "")


async def test_a_program_on_a_volume_that_hangs_is_a_jailers_trouble(
    jailers: Jailers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("needs FUSE")
    monkeypatch.setattr(module, "_MOST", 1)
    monkeypatch.setattr(module, "_HANGS", 0.2)
    (tmp_path / "hung").mkdir()
    volume: Mount = {"destination": "/data", "type": "bind", "source": str(tmp_path / "hung"), "options": ["rbind"]}
    with hung_file(tmp_path / "hung", 5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(jailers.make, plan(tmp_path, volume, program="/data/app.wasm"))
            await until_it_reads(jailers)
            (await jailers.make(plan(tmp_path))).__exit__(None, None, None)
            tasks.cancel_scope.cancel()


async def until_it_reads(jailers: Jailers) -> None:
    """Until a jailer has opened the program."""
    while not any(_has_open(pid, "/app.wasm") for pid in jailers.pids):  # noqa: ASYNC110 — no event tells of it
        await anyio.sleep(0.01)


def _has_open(pid: int, end: str) -> bool:
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it is closed by now
            if os.readlink(one).endswith(end):
                return True
    return False


def with_hooks(bundle: Path) -> NewJail:
    found = plan(bundle)
    found.spec["hooks"] = {"createRuntime": [{"path": "/bin/true"}]}
    return found


async def test_with_hooks_it_is_held_and_the_nodes_files_are_in_sight(jailers: Jailers, tmp_path: Path) -> None:
    own = os.readlink("/proc/self/ns/mnt")
    with await jailers.make(with_hooks(tmp_path)) as jail:
        (jailer,) = jailers.pids
        assert os.readlink(f"/proc/{jailer}/ns/mnt") != own
        assert Path(f"/proc/{jailer}/root/{__file__}").exists()
        await jail.finish()
        assert os.readlink(f"/proc/{jailer}/ns/mnt") == own
    assert jailers.pids == [jailer]


async def test_hooks_keep_no_others_waiting(jailers: Jailers, tmp_path: Path) -> None:
    """However many are held; and whoever is not wanted any more is ended."""
    with ExitStack() as held:
        for _ in range(module._MOST + 2):
            held.enter_context(await jailers.make(with_hooks(tmp_path)))
        assert jailers._at_work() == 0
        assert len(jailers.pids) == module._MOST + 2
    assert jailers.pids == []


async def test_what_fails_meanwhile_is_the_error(jailers: Jailers, tmp_path: Path) -> None:
    """And the jail, whose maker is ended, is gone."""

    async def fail() -> None:
        raise InvalidArgument("the cgroup cannot be made")

    (await jailers.make(plan(tmp_path))).__exit__(None, None, None)
    (first,) = jailers.pids
    with pytest.raises(InvalidArgument, match="the cgroup"):
        await jailers.make(plan(tmp_path), None, fail)
    with await jailers.make(plan(tmp_path)) as jail:
        assert jail.program is not None
    (second,) = jailers.pids
    assert second != first


async def settled(jailer: int) -> int:
    """How many descriptors it has open once it waits for work: it closes after it has answered."""
    while "S (sleeping)" not in Path(f"/proc/{jailer}/status").read_text():  # noqa: ASYNC110
        await anyio.sleep(0.01)
    return len(os.listdir(f"/proc/{jailer}/fd"))


async def test_descriptors_do_not_pile_up(jailers: Jailers, tmp_path: Path) -> None:
    for _ in range(3):
        (await jailers.make(plan(tmp_path))).__exit__(None, None, None)
    (jailer,) = jailers.pids
    before = await settled(jailer)
    bad: Mount = {"destination": "/x", "type": "bind", "source": "/nowhere", "options": ["bind"]}
    for _ in range(5):
        (await jailers.make(plan(tmp_path))).__exit__(None, None, None)
        with pytest.raises(InvalidArgument, match="mount /x: source /nowhere: no such file"):
            await jailers.make(plan(tmp_path, bad))
    assert jailers.pids == [jailer]
    assert await settled(jailer) == before


async def test_a_program_that_is_not_there(jailers: Jailers, tmp_path: Path) -> None:
    with await jailers.make(plan(tmp_path, program="other.wasm")) as jail:
        assert (jail.program, jail.path) == (None, "/other.wasm")
        assert jail.missing == "other.wasm: executable file not found in $PATH"


async def test_a_spec_that_is_none(jailers: Jailers, tmp_path: Path) -> None:
    broken = plan(tmp_path)
    del broken.spec["root"]
    with pytest.raises(ShimdError, match="KeyError: 'root'"):
        await jailers.make(broken)
    (await jailers.make(plan(tmp_path))).__exit__(None, None, None)  # it goes on


async def test_one_that_is_killed_is_replaced(jailers: Jailers, tmp_path: Path) -> None:
    (await jailers.make(plan(tmp_path))).__exit__(None, None, None)
    (jailer,) = jailers.pids
    os.kill(jailer, signal.SIGKILL)
    os.waitid(os.P_PID, jailer, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 — it is dying
    (await jailers.make(plan(tmp_path))).__exit__(None, None, None)
    assert jailers.pids != [jailer]


async def test_one_that_dies_at_its_work_is_told_of(jailers: Jailers, tmp_path: Path) -> None:
    (await jailers.make(plan(tmp_path))).__exit__(None, None, None)
    (jailer,) = jailers.pids
    os.kill(jailer, signal.SIGSTOP)
    with pytest.raises(Unavailable, match="the jailer died"):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_kill, jailer)
            try:
                await jailers.make(plan(tmp_path))
            except ShimdError as error:
                caught = error
        raise caught
    (await jailers.make(plan(tmp_path))).__exit__(None, None, None)


async def _kill(pid: int) -> None:
    await anyio.wait_all_tasks_blocked()
    os.kill(pid, signal.SIGKILL)


async def test_who_waits_for_one_that_hangs_is_told(
    jailers: Jailers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (await jailers.make(plan(tmp_path))).__exit__(None, None, None)
    (jailer,) = jailers.pids
    monkeypatch.setattr(module, "_LIMIT", 0.2)
    os.kill(jailer, signal.SIGSTOP)
    with pytest.raises(Unavailable, match=r"^the jailer has not answered within 0\.2 s"):
        await jailers.make(plan(tmp_path))
    monkeypatch.undo()
    (await jailers.make(plan(tmp_path))).__exit__(None, None, None)
    assert jailer not in jailers.pids


async def test_a_jailer_without_descriptors_says_so(jailers: Jailers, tmp_path: Path) -> None:
    """And goes on, with the same process."""
    (await jailers.make(plan(tmp_path))).__exit__(None, None, None)
    (jailer,) = jailers.pids
    limits = resource.prlimit(jailer, resource.RLIMIT_NOFILE)
    least = await settled(jailer)
    for left in range(6):
        resource.prlimit(jailer, resource.RLIMIT_NOFILE, (least + left, limits[1]))
        with pytest.raises(ShimdError, match=r"(?i)too many open files"):
            (await jailers.make(plan(tmp_path))).__exit__(None, None, None)
    resource.prlimit(jailer, resource.RLIMIT_NOFILE, limits)
    (await jailers.make(plan(tmp_path))).__exit__(None, None, None)
    assert jailers.pids == [jailer]


async def test_others_go_on_without_one_that_hangs(
    jailers: Jailers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST", 1)
    monkeypatch.setattr(module, "_HANGS", 0.2)
    (await jailers.make(plan(tmp_path))).__exit__(None, None, None)
    (jailer,) = jailers.pids
    os.kill(jailer, signal.SIGSTOP)  # as if a volume did not answer
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(jailers.make, plan(tmp_path))
        await anyio.wait_all_tasks_blocked()
        (await jailers.make(plan(tmp_path))).__exit__(None, None, None)
        tasks.cancel_scope.cancel()  # the client gives up: nobody knows what that jailer is at
    assert jailer not in jailers.pids


@pytest.mark.parametrize("left", range(8))
async def test_few_descriptors_are_an_error_and_the_next_jail_is_made(
    jailers: Jailers, tmp_path: Path, left: int
) -> None:
    with await jailers.make(plan(tmp_path)):
        pass
    before = set(os.listdir("/proc/self/fd"))
    with no_descriptors(left), suppress(OSError, ShimdError), await jailers.make(plan(tmp_path)):
        pass
    for _ in range(4):  # more than may be at work at a time
        with await jailers.make(plan(tmp_path)):
            pass
    assert len(jailers.pids) == 1
    assert len(os.listdir("/proc/self/fd")) <= len(before)
