"""Scheduler, I/O priority, personality, memory policy and processors: what the kernel says of a process with them."""

import ctypes
import os
import platform
from collections.abc import Callable
from typing import Any

import pytest

from shimd.errors import InvalidArgument
from shimd.isolation.scheduling import treat
from shimd.protocol.steps import Steps
from tests.unit.inside import reported

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
_IOPRIO_GET, _GET_MEMPOLICY = (252, 239) if os.uname().machine == "x86_64" else (31, 236)
NUMA = os.path.exists("/sys/devices/system/node/node0")
_libc = ctypes.CDLL(None, use_errno=True)


def after(
    then: Callable[[], object], linux: dict[str, Any] | None = None, further: bool = False, **process: Any
) -> str:
    """What ``then`` says in a process that is treated so."""
    steps = Steps()
    spec: Any = {"linux": linux or {}, "process": {}}
    own: Any = {"args": ["/app"], "cwd": "/", **process}
    treat(steps, spec, own, further)

    def act() -> object:
        steps.take()
        return then()

    return reported(act)


def policy() -> object:
    return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getparam(0).sched_priority


@pytest.mark.parametrize(
    ("scheduler", "found"),
    [
        ({"policy": "SCHED_OTHER", "nice": 7}, (os.SCHED_OTHER, 7, 0)),
        ({"policy": "SCHED_BATCH", "nice": -3}, (os.SCHED_BATCH, -3, 0)),
        ({"policy": "SCHED_IDLE"}, (os.SCHED_IDLE, 0, 0)),
        (
            {"policy": "SCHED_OTHER", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            (os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, 5, 0),
        ),
    ],
)
def test_the_scheduler(scheduler: dict[str, Any], found: tuple[int, int, int]) -> None:
    assert after(policy, scheduler=scheduler) == str(found)


def test_a_further_process_has_its_containers_unless_it_has_its_own() -> None:
    steps = Steps()
    spec: Any = {"process": {"scheduler": {"policy": "SCHED_BATCH"}}}
    treat(steps, spec, {"args": ["/app"], "cwd": "/"}, further=True)

    def act() -> object:
        steps.take()
        return os.sched_getscheduler(0)

    assert reported(act) == str(os.SCHED_BATCH)


@pytest.mark.parametrize(("name", "number"), [("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3), ("IOPRIO_CLASS_RT", 1)])
def test_the_io_priority(name: str, number: int) -> None:
    said = after(lambda: _libc.syscall(_IOPRIO_GET, 1, 0), ioPriority={"class": name, "priority": 6})
    assert int(said) == number << 13 | 6


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors may know no other")
def test_the_personality() -> None:
    assert after(lambda: os.uname().machine, {"personality": {"domain": "LINUX32"}}) == "i686"
    assert after(lambda: os.uname().machine, {"personality": {"domain": "LINUX"}}) == "x86_64"


def memory_policy() -> object:
    mode, nodes = ctypes.c_int(), (ctypes.c_ulong * 64)()
    assert _libc.syscall(_GET_MEMPOLICY, ctypes.byref(mode), nodes, ctypes.c_ulong(4096), None, 0) == 0
    return mode.value, nodes[0]


def test_the_memory_policy() -> None:
    said = after(memory_policy, {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}})
    # A kernel without NUMA says so.
    assert said == (f"({2 | 1 << 15}, 1)" if NUMA else "InvalidArgument: linux.memoryPolicy: Function not implemented")


def test_the_processors_of_an_exec() -> None:
    one = max(os.sched_getaffinity(0))
    wanted = {"initial": "0", "final": str(one)}
    assert after(lambda: os.sched_getaffinity(0), further=True, execCPUAffinity=wanted) == str({one})
    assert after(lambda: os.sched_getaffinity(0), execCPUAffinity=wanted) == str(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("linux", "process", "words"),
    [
        ({}, {"scheduler": {"policy": "SCHED_NONE"}}, "process.scheduler.policy: SCHED_NONE is not known"),
        ({}, {"scheduler": {"nice": 1}}, "process.scheduler.policy: None is not known"),
        (
            {},
            {"scheduler": {"policy": "SCHED_OTHER", "flags": ["FAST"]}},
            "process.scheduler.flags: FAST is not known",
        ),
        ({}, {"ioPriority": {"class": "BEST", "priority": 1}}, "process.ioPriority.class: BEST is not known"),
        ({}, {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}, "process.ioPriority.priority: 8 is not"),
        ({"personality": {"domain": "BSD"}}, {}, "linux.personality.domain: BSD is not known"),
        ({"memoryPolicy": {"mode": "MPOL_MINE"}}, {}, "linux.memoryPolicy.mode: MPOL_MINE is not known"),
        ({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "1-0"}}, {}, "linux.memoryPolicy.nodes: 1-0 is not a list"),
        ({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "x"}}, {}, "linux.memoryPolicy.nodes: x is not a list"),
        ({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-99999999"}}, {}, "linux.memoryPolicy.nodes: 0-99999999 is"),
    ],
)
def test_what_is_unknown_is_named(linux: dict[str, Any], process: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        after(os.getpid, linux, **process)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("process", "words"),
    [
        ({"scheduler": {"policy": "SCHED_FIFO", "priority": 1000}}, "process.scheduler: invalid argument"),
        ({"scheduler": {"policy": "SCHED_ISO"}}, "process.scheduler: invalid argument"),
    ],
)
def test_what_the_kernel_refuses_is_named(process: dict[str, Any], words: str) -> None:
    assert after(os.getpid, **process) == f"InvalidArgument: {words}"
