"""Time namespaces: what the clocks inside say, and who is left where."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from shimd.isolation.time_namespace import time_namespace
from shimd.jailer.main import Home
from shimd.linux import libc
from shimd.oci import Linux, Mount
from tests.unit.inside import reported
from tests.unit.jailer.test_jail import OWN, entered

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not os.path.exists("/proc/self/timens_offsets"), reason="this kernel has no time namespaces"),
]
DAY = 86400


def linux(offsets: dict[str, Any] | None = None, path: str = "") -> Linux:
    return {"namespaces": [*OWN, {"type": "time", "path": path}], "timeOffsets": offsets or {}}


def refused(spec: Linux) -> str:
    return reported(lambda: time_namespace({"linux": spec}))


@pytest.mark.parametrize(("clock", "name"), [(time.CLOCK_MONOTONIC, "monotonic"), (time.CLOCK_BOOTTIME, "boottime")])
def test_a_worker_that_has_joined_sees_the_offset(root: Path, clock: int, name: str) -> None:
    """By the vDSO, whose page is the old one's until it is joined."""
    before = time.clock_gettime(clock)
    said = entered(root, lambda: time.clock_gettime(clock), {"linux": linux({name: {"secs": 10 * DAY}})})
    assert 0 <= float(said) - before - 10 * DAY < DAY


def test_without_offsets_it_is_a_namespace_all_the_same(root: Path) -> None:
    own = os.readlink("/proc/self/ns/time")
    proc: list[Mount] = [{"destination": "/proc", "type": "proc", "source": "proc"}]
    said = entered(root, lambda: os.readlink("/proc/self/ns/time"), {"linux": linux(), "mounts": proc})
    assert said.startswith("time:[") and said != own


def test_the_sandboxer_comes_home(root: Path) -> None:
    def there_and_back() -> object:
        own, home = os.readlink("/proc/self/ns/time_for_children"), Home()
        time_namespace({"linux": linux({"monotonic": {"secs": DAY}})})
        away = os.readlink("/proc/self/ns/time_for_children")
        home.go()
        return away != own and os.readlink("/proc/self/ns/time_for_children") == own == os.readlink(
            "/proc/self/ns/time"
        )

    assert reported(there_and_back) == "True"


def test_one_of_another_container_is_joined(root: Path) -> None:
    def joined() -> object:
        fd = time_namespace({"linux": linux({"boottime": {"secs": DAY}})})
        fd = time_namespace({"linux": linux(path=f"/proc/self/fd/{fd}")})
        assert fd is not None
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        libc.setns(fd, libc.CLONE_NEWTIME)
        return DAY <= time.clock_gettime(time.CLOCK_BOOTTIME) - before < DAY + 60

    assert reported(joined) == "True"


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"timeOffsets": {"monotonic": {"secs": 1}}}, "linux.timeOffsets: there is no time namespace among"),
        (linux({"monotonic": {"secs": 1}}, "/proc/self/ns/time"), "linux.timeOffsets: a time namespace that is joined"),
        (linux({"realtime": {"secs": 1}}), "linux.timeOffsets: invalid argument"),
        (linux({"monotonic": {"nanosecs": 10**9}}), "linux.timeOffsets: invalid argument"),
        (linux({"monotonic": {"secs": -(2**60)}}), "linux.timeOffsets: numerical result out of range"),
        (linux(path="/nowhere"), "time namespace /nowhere cannot be joined: no such file or directory"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(spec: Linux, sentence: str) -> None:
    assert refused(spec).startswith(f"InvalidArgument: {sentence}")


def test_a_kernel_without_them_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shimd.isolation.time_namespace._OFFSETS", "/proc/self/nothing")
    assert refused(linux()).startswith("Unimplemented: linux.namespaces: this kernel has no time namespaces")
