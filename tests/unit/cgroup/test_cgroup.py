"""Cgroups of this node, whatever its layout: made, limited, entered, frozen, counted, removed."""

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from shimd.cgroup import Cgroup, layout
from shimd.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from shimd.linux.cgroup import join

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
MIB = 1 << 20
_serial = itertools.count()


@pytest.fixture
def name() -> str:
    return f"shimd-test-{os.getpid()}-{next(_serial)}"


@pytest.fixture
def cgroup(name: str) -> Iterator[Cgroup]:
    made = Cgroup.create(f"/{name}", {})
    yield made
    made.kill()
    made.remove()
    assert not directories(name)


def directories(name: str) -> list[str]:
    return [f"{root}/{name}" for root in layout.current().roots if os.path.exists(f"{root}/{name}")]


class Member:
    """A forked child in a cgroup; ends with the test."""

    def __init__(self, cgroup: Cgroup, action: Callable[[], object] = signal.pause) -> None:
        ready, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                join(cgroup.directories)
                os.write(told, b".")
                action()
            finally:
                os._exit(0)
        os.close(told)
        assert os.read(ready, 1) == b"."
        os.close(ready)

    def end(self) -> int:
        return os.waitpid(self.pid, 0)[1]


def test_removed_at_once_if_nothing_is_in_it(name: str) -> None:
    cgroup = Cgroup.create(f"/{name}", {})
    member = Member(cgroup)
    assert not cgroup.remove_at_once()
    assert os.path.exists(f"/proc/{member.pid}")  # it is nobody's to kill here
    os.kill(member.pid, signal.SIGKILL)
    member.end()
    cgroup.remove()
    assert cgroup.remove_at_once()  # it is gone
    assert not directories(name)
    assert Cgroup.create(f"/{name}", {}).remove_at_once()
    assert not directories(name)


def test_a_directory_in_each_hierarchy_and_none_afterwards(name: str) -> None:
    cgroup = Cgroup.create(f"/{name}", {})
    assert cgroup.directories == directories(name) == [f"{root}/{name}" for root in layout.current().roots]
    cgroup.remove()
    cgroup.remove()  # quietly
    assert directories(name) == []


def test_limits_are_what_the_kernel_says(name: str) -> None:
    cgroup = Cgroup.create(f"/{name}", {"memory": {"limit": 64 * MIB}, "pids": {"limit": 7}, "cpu": {"shares": 512}})
    try:
        readings = cgroup.stats()
        assert readings is not None
        pids = cgroup._find("pids")
        memory = cgroup._find("memory")
        assert pids is not None and memory is not None
        assert Path(pids, "pids.max").read_text() == "7\n"
        file = "memory.max" if cgroup.version == 2 else "memory.limit_in_bytes"
        assert int(Path(memory, file).read_text()) == 64 * MIB
        cgroup.apply({"pids": {"limit": 9}})
        assert Path(pids, "pids.max").read_text() == "9\n"
    finally:
        cgroup.remove()


def test_a_limit_that_the_kernel_refuses_leaves_nothing(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"cpuset\.cpus cannot be set to '900'"):
        Cgroup.create(f"/{name}", {"cpu": {"cpus": "900"}})
    assert directories(name) == []


def test_a_limit_below_what_is_in_use(tmp_path: Path) -> None:
    """checkBeforeUpdate, for version 2: files are all that it is about."""
    for name, value in (("cgroup.controllers", "memory"), ("memory.current", "1000000"), ("memory.max", "max")):
        (tmp_path / name).write_text(value)
    cgroup = Cgroup([str(tmp_path)], layout.Layout(unified=str(tmp_path)))
    with pytest.raises(FailedPrecondition, match=r"linux\.resources\.memory\.limit: 4096 is below the 1000000 bytes"):
        cgroup.apply({"memory": {"limit": 4096, "checkBeforeUpdate": True}})
    assert (tmp_path / "memory.max").read_text() == "max"
    cgroup.apply({"memory": {"limit": 2000000, "checkBeforeUpdate": True}})
    assert (tmp_path / "memory.max").read_text() == "2000000"
    cgroup.apply({"memory": {"limit": 4096}})
    assert (tmp_path / "memory.max").read_text().startswith("4096")


def test_one_that_is_in_use_is_not_taken(cgroup: Cgroup, name: str) -> None:
    member = Member(cgroup)
    with pytest.raises(AlreadyExists, match="in use"):
        Cgroup.create(f"/{name}", {})
    assert cgroup.pids() == [member.pid]
    cgroup.kill()
    member.end()


def test_one_that_was_left_behind_is_replaced(name: str) -> None:
    left = Cgroup.create(f"/{name}", {"pids": {"limit": 3}})
    made = Cgroup.create(f"/{name}", {})
    pids = made._find("pids")
    assert pids is not None
    assert Path(pids, "pids.max").read_text() == "max\n"
    left.remove()


def test_members_are_in_all_hierarchies(cgroup: Cgroup, name: str) -> None:
    member = Member(cgroup)
    lines = Path(f"/proc/{member.pid}/cgroup").read_text().splitlines()
    assert all(line.endswith(f":/{name}") for line in lines if _ours(line))
    cgroup.kill()
    assert os.waitstatus_to_exitcode(member.end()) == -signal.SIGKILL
    assert cgroup.pids() == []


def _ours(line: str) -> bool:
    """Whether the hierarchy of a line of /proc/PID/cgroup is mounted here."""
    _number, controllers, _path = line.split(":", 2)
    mounted = {name for hierarchy in layout.current().v1 for name in hierarchy.controllers}
    return bool(set(controllers.split(",")) & mounted) if controllers else layout.current().unified is not None


def test_freezing_stops_a_spinning_member_and_thawing_lets_it_go_on(cgroup: Cgroup) -> None:
    def spin() -> None:
        while True:
            pass

    member = Member(cgroup, spin)
    cgroup.freeze()
    before = _ticks(member.pid)
    time.sleep(0.1)
    assert _ticks(member.pid) == before
    cgroup.thaw()
    while _ticks(member.pid) == before:
        time.sleep(0.01)
    cgroup.freeze()
    cgroup.kill()  # a frozen one, too
    assert os.waitstatus_to_exitcode(member.end()) == -signal.SIGKILL


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_removing_waits_for_the_dying_and_takes_children_along(cgroup: Cgroup, name: str) -> None:
    member = Member(cgroup)
    for directory in cgroup.directories:
        os.mkdir(f"{directory}/child")
    os.kill(member.pid, signal.SIGKILL)
    cgroup.remove()
    member.end()
    assert directories(name) == []


def test_removing_what_is_in_use_says_so(cgroup: Cgroup) -> None:
    member = Member(cgroup)
    with pytest.raises(OSError, match="busy"):
        cgroup.remove()
    os.kill(member.pid, signal.SIGKILL)
    member.end()


@pytest.mark.anyio
async def test_kills_for_memory_are_heard_of(name: str) -> None:
    cgroup = Cgroup.create(f"/{name}", {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}})
    heard = 0
    try:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:

                async def listen() -> None:
                    nonlocal heard
                    async for number in cgroup.oom_kills():
                        heard += number
                        tasks.cancel_scope.cancel()

                tasks.start_soon(listen)
                await anyio.sleep(0.05)
                member = Member(cgroup, lambda: bytearray(128 * MIB).find(1))
                assert os.waitstatus_to_exitcode(member.end()) == -signal.SIGKILL
        assert heard == cgroup.oom_count() == 1
    finally:
        cgroup.remove()


@pytest.mark.anyio
async def test_listening_ends_with_the_cgroup(name: str) -> None:
    cgroup = Cgroup.create(f"/{name}", {})
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                async for _number in cgroup.oom_kills():
                    raise AssertionError("nothing was killed")

            tasks.start_soon(listen)
            await anyio.sleep(0.05)
            cgroup.remove()
