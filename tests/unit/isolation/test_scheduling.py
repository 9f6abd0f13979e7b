"""Scheduler, I/O priority, personality, memory policy and processors: what the kernel says of a process with them."""

import ctypes
import os
import platform
from collections.abc import Callable
from typing import Any

import pytest

from shimd.errors import InvalidArgument
from shimd.isolation.scheduling import _mask, treat
from shimd.protocol.system_calls import SystemCalls
from tests.unit.inside import reported

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
_IOPRIO_GET, _GET_MEMPOLICY = (252, 239) if os.uname().machine == "x86_64" else (31, 236)
NUMA = os.path.exists("/sys/devices/system/node/node0")
_libc = ctypes.CDLL(None, use_errno=True)


def after(
    then: Callable[[], object], linux: dict[str, Any] | None = None, further: bool = False, **process: Any
) -> str:
    """What ``then`` says in a process that is treated so."""
    calls = SystemCalls()
    spec: Any = {"linux": linux or {}, "process": {}}
    own: Any = {"args": ["/app"], "cwd": "/", **process}
    treat(calls, spec, own, further)

    def act() -> object:
        calls.take()
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


def of_its_container(then: Callable[[], object], **process: Any) -> str:
    """What ``then`` says in an exec whose container is treated so."""
    calls = SystemCalls()
    spec: Any = {"process": process}
    treat(calls, spec, {"args": ["/app"], "cwd": "/"}, further=True)

    def act() -> object:
        calls.take()
        return then()

    return reported(act)


def test_a_further_process_has_its_containers_unless_it_has_its_own() -> None:
    said = of_its_container(lambda: os.sched_getscheduler(0), scheduler={"policy": "SCHED_BATCH"})
    assert said == str(os.SCHED_BATCH)


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
    assert said == (
        f"({2 | 1 << 15}, 1)" if NUMA else "InvalidArgument: cannot set linux.memoryPolicy: Function not implemented"
    )


def affinity() -> set[int]:
    return os.sched_getaffinity(0)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor is all that it can have")
def test_the_processors_of_an_exec() -> None:
    """The final ones: its own, or its container's; of a container's first process they are not asked for."""
    first, *_, last = sorted(affinity())
    for one, other in ((first, last), (last, first)):
        wanted = {"initial": str(other), "final": str(one)}
        assert after(affinity, further=True, execCPUAffinity=wanted) == str({one})
        assert after(affinity, execCPUAffinity=wanted) == str(affinity())
        assert of_its_container(affinity, execCPUAffinity=wanted) == str({one})
    whole = {"final": ",".join(map(str, affinity()))}
    assert after(affinity, further=True, execCPUAffinity=whole) == str(affinity())


@pytest.mark.parametrize(
    ("ranges", "bits"),
    [("0", 0b1), ("3", 0b1000), ("0-2", 0b111), ("1-1,4,6-7", 0b11010010), ("63-64", 3 << 63), ("", 0)],
)
def test_lists_of_numbers(ranges: str, bits: int) -> None:
    """Of processors and of memory nodes: a mask of whole words."""
    mask = _mask(ranges, "field")
    assert int.from_bytes(mask, "little") == bits
    assert len(mask) == (0 if not bits else 8 if bits < 1 << 64 else 16)


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
        ({"scheduler": {"policy": "SCHED_FIFO", "priority": 1000}}, "cannot set process.scheduler: invalid argument"),
        ({"scheduler": {"policy": "SCHED_ISO"}}, "cannot set process.scheduler: invalid argument"),
    ],
)
def test_what_the_kernel_refuses_is_named(process: dict[str, Any], words: str) -> None:
    assert after(os.getpid, **process) == f"InvalidArgument: {words}"
