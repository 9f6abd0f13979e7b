"""How many processors there are: quotas of one's own cgroup and of those above it."""

import os
from pathlib import Path

import pytest

from shimd.cgroup.layout import Hierarchy, Layout
from shimd.cgroup.processors import _quotas, processors

HYBRID = "4:memory:/a/b\n3:cpu,cpuacct:/a/b\n0::/other\n"


def write(path: Path, **files: str) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    ("above", "own", "found"),
    [
        ("max 100000", "max 100000", []),
        ("max 100000", "150000 100000", [2]),
        ("100000 100000", "300000 100000", [1, 3]),
    ],
)
def test_version_2(tmp_path: Path, above: str, own: str, found: list[int]) -> None:
    write(tmp_path / "a", cpu__max=above)
    write(tmp_path / "a/b", cpu__max=own)
    assert _quotas(Layout(unified=str(tmp_path)), "0::/a/b\n") == found


@pytest.mark.parametrize(("quota", "found"), [("-1", []), ("1000", [1]), ("250000", [3])])
def test_version_1(tmp_path: Path, quota: str, found: list[int]) -> None:
    write(tmp_path / "a/b", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    where = Layout((Hierarchy(str(tmp_path), frozenset({"cpu", "cpuacct"})),), unified="/nowhere")
    assert _quotas(where, HYBRID) == found


def test_what_is_out_of_sight_is_no_limit(tmp_path: Path) -> None:
    """As in a container that sees its own cgroup as the root."""
    assert _quotas(Layout(unified=str(tmp_path)), "0::/../../elsewhere\n") == []


def test_of_this_process() -> None:
    assert 1 <= processors() <= len(os.sched_getaffinity(0))
