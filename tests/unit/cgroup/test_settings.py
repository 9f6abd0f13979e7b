"""``linux.resources`` as values for the kernel's files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shimd.cgroup import setting, v1, v2
from shimd.cgroup.setting import Setting
from shimd.errors import InvalidArgument, Unimplemented

Translate = Callable[[dict[str, Any]], list[Setting]]
MIB = 1 << 20


def files(translate: Translate, resources: dict[str, Any]) -> dict[str, str]:
    return {each.file: each.value for each in translate(resources)}


@pytest.mark.parametrize(
    ("resources", "old", "new"),
    [
        ({}, {}, {}),
        ({"cpu": {"shares": 1024}}, {"cpu.shares": "1024"}, {"cpu.weight": "39"}),
        ({"cpu": {"shares": 2}}, {"cpu.shares": "2"}, {"cpu.weight": "1"}),
        ({"cpu": {"shares": 262144}}, {"cpu.shares": "262144"}, {"cpu.weight": "10000"}),
        (
            {"cpu": {"quota": 50000, "period": 100000}},
            {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"},
            {"cpu.max": "50000 100000"},
        ),
        ({"cpu": {"quota": -1}}, {"cpu.cfs_quota_us": "-1"}, {"cpu.max": "max"}),
        ({"cpu": {"cpus": "0-1", "mems": "0"}}, {"cpuset.cpus": "0-1", "cpuset.mems": "0"},
         {"cpuset.cpus": "0-1", "cpuset.mems": "0"}),
        ({"memory": {"limit": 64 * MIB}}, {"memory.limit_in_bytes": str(64 * MIB)}, {"memory.max": str(64 * MIB)}),
        (
            {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}},
            {"memory.limit_in_bytes": str(64 * MIB), "memory.memsw.limit_in_bytes": str(96 * MIB)},
            {"memory.max": str(64 * MIB), "memory.swap.max": str(32 * MIB)},
        ),
        (
            {"memory": {"limit": -1}},
            {"memory.limit_in_bytes": "-1", "memory.memsw.limit_in_bytes": "-1"},
            {"memory.max": "max", "memory.swap.max": "max"},
        ),
        ({"pids": {"limit": 100}}, {"pids.max": "100"}, {"pids.max": "100"}),
        ({"pids": {"limit": -1}}, {"pids.max": "max"}, {"pids.max": "max"}),
        ({"pids": {"limit": 0}}, {}, {}),
    ],
)  # fmt: skip
def test_values(resources: dict[str, Any], old: dict[str, str], new: dict[str, str]) -> None:
    assert files(v1.settings, resources) == old
    assert files(v2.settings, resources) == new


def test_unified_names_files_and_wins() -> None:
    found = v2.settings({"memory": {"limit": MIB}, "unified": {"memory.max": "5", "memory.high": "4"}})
    assert [(each.file, each.value) for each in found][-2:] == [("memory.max", "5"), ("memory.high", "4")]
    with pytest.raises(InvalidArgument, match="not the name of a cgroup file"):
        v2.settings({"unified": {"../../etc/passwd": "x"}})
    with pytest.raises(InvalidArgument, match="version 2"):
        v1.settings({"unified": {"memory.max": "5"}})


def test_device_rules_keep_their_order_and_the_defaults_follow() -> None:
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "rw"}]
    found = [(each.file, each.value) for each in v1.settings({"devices": rules})]
    assert found[:2] == [("devices.deny", "a"), ("devices.allow", "c 10:200 rw")]
    assert ("devices.allow", "c 1:3 rwm") in found[2:]


@pytest.mark.parametrize("translate", [v1.settings, v2.settings], ids=["v1", "v2"])
@pytest.mark.parametrize(
    "resources",
    [{"cpu": ["x"]}, {"cpu": {"shares": "many"}}, {"memory": {"limit": 1.5}}, {"pids": {"limit": True}},
     {"hugepageLimits": {"x": 1}}, {"cpu": {"cpus": 3}}],
)  # fmt: skip
def test_nonsense_is_refused_by_name(translate: Translate, resources: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"linux\.resources: \w+ is not"):
        translate(resources)


def test_version_2_wants_swap_to_include_memory() -> None:
    for memory in ({"swap": MIB}, {"limit": 2 * MIB, "swap": MIB}):
        with pytest.raises(InvalidArgument, match=r"memory\.swap"):
            v2.settings({"memory": memory})


def test_a_limit_without_its_controller_is_an_error_no_limit_is_none(tmp_path: Path) -> None:
    setting.write_all([Setting("pids", "pids.max", "max", optional=True)], lambda _controller: None)
    with pytest.raises(Unimplemented, match=r"pids\.max cannot be set to '5': this node has no cgroup controller pids"):
        setting.write_all([Setting("pids", "pids.max", "5")], lambda _controller: None)
    with pytest.raises(Unimplemented, match="no such cgroup file"):
        setting.write_all([Setting("pids", "pids.max", "5")], lambda _controller: str(tmp_path))
