"""Names: ``linux.cgroupsPath`` in both forms, and where hierarchies are mounted."""

import pytest

from shimd.cgroup import layout, paths
from shimd.errors import InvalidArgument


@pytest.mark.parametrize(
    ("path", "systemd", "expected"),
    [
        ("/default/app", False, "default/app"),
        ("//a/./b/", False, "a/b"),
        ("kubepods-burstable-podx.slice:cri-containerd:id", False,
         "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice/cri-containerd-id.scope"),
        ("system.slice::id", True, "system.slice/id.scope"),
        (":shimd:id", True, "system.slice/shimd-id.scope"),
        ("-.slice:a:b", True, "a-b.scope"),
        ("a:b:c", False, "a:b:c"),
    ],
)  # fmt: skip
def test_paths(path: str, systemd: bool, expected: str) -> None:
    assert paths.relative(path, systemd) == expected


@pytest.mark.parametrize(
    ("path", "systemd"),
    [("", False), ("/", False), ("/..", False), ("/a/../../etc", False), ("/a\0b", False), ("/a/b", True),
     ("a:b:", True), ("a.slice:../x:y", True), ("nope:b:c", True), ("a--b.slice:c:d", True)],
)  # fmt: skip
def test_paths_that_name_no_cgroup_of_their_own(path: str, systemd: bool) -> None:
    with pytest.raises(InvalidArgument, match="cgroupsPath"):
        paths.relative(path, systemd)


V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = """\
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw shared:6 - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw shared:7 - cgroup cgroup rw,xattr,name=systemd
34 30 0:28 / /mnt/my\\040own rw shared:6 - cgroup cgroup rw,memory
"""
HYBRID = V1 + "35 30 0:30 / /sys/fs/cgroup/unified rw shared:8 - cgroup2 cgroup2 rw\n"


def test_unified() -> None:
    found = layout.parse(V2)
    assert found.is_v2
    assert found.roots == ["/sys/fs/cgroup"]


def test_version_1() -> None:
    found = layout.parse(V1)
    assert not found.is_v2
    assert found.roots == [f"/sys/fs/cgroup/{name}" for name in ("cpu,cpuacct", "memory", "systemd")]


def test_hybrid_has_version_1s_controllers_and_joins_both() -> None:
    found = layout.parse(HYBRID)
    assert not found.is_v2
    assert found.roots[-1] == found.unified == "/sys/fs/cgroup/unified"


def test_the_usual_place_goes_before_any_other_and_spaces_are_spaces() -> None:
    assert layout.parse("".join(sorted(V1.splitlines(keepends=True), reverse=True))).roots[0].startswith("/sys")
    assert layout.parse(V1.splitlines()[3]).roots == ["/mnt/my own"]


def test_none_at_all() -> None:
    assert layout.parse("22 1 254:0 / / rw - ext4 /dev/root rw\n").roots == []
