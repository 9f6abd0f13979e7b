"""The mount points of this node's cgroup hierarchies, read once from ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)).

- version 2 ("unified"): one hierarchy has all controllers
- version 1: one hierarchy per controller or few (``cpu,cpuacct``), and ``name=systemd`` that has none
- hybrid: version 1, and a version 2 hierarchy beside it that is only joined, so that what finds processes by it
  (systemd, BPF programs) finds ours; controllers that it may have are left alone, as runc does

In a container that has a cgroup namespace, or sees its own subtree only, the mount points are the roots of all we make.
"""

import re
from dataclasses import dataclass
from functools import cache

from shimd.cgroup.files import read

_CONTROLLERS = frozenset(
    "cpu cpuacct cpuset memory devices freezer blkio pids hugetlb net_cls net_prio perf_event rdma misc".split()
)
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Hierarchy:
    """A version 1 hierarchy: its mount point, and its controllers (or ``name=…``)."""

    root: str
    controllers: frozenset[str]


@dataclass(frozen=True)
class Layout:
    v1: tuple[Hierarchy, ...] = ()
    unified: str | None = None
    """Mount point of version 2."""

    @property
    def is_v2(self) -> bool:
        """True if version 2 has the controllers."""
        return self.unified is not None and not any(one.controllers & _CONTROLLERS for one in self.v1)

    @property
    def roots(self) -> list[str]:
        """Mount points of all hierarchies in which a container has a directory."""
        unified = [self.unified] if self.unified else []
        return unified if self.is_v2 else [*(hierarchy.root for hierarchy in self.v1), *unified]


@cache
def current() -> Layout:
    """Returns this node's layout, read once."""
    return parse(read("/proc/self/mountinfo"))


def parse(mountinfo: str) -> Layout:
    """Parse ``/proc/self/mountinfo``: a hierarchy's first mount counts, one below /sys/fs/cgroup before any other."""
    v1: dict[frozenset[str], str] = {}
    unified: str | None = None
    for point, fstype, options in sorted(_mounts(mountinfo), key=lambda one: not one[0].startswith("/sys/fs/cgroup")):
        if fstype == "cgroup2":
            unified = unified or point
        elif names := frozenset(name for name in options if name in _CONTROLLERS or name.startswith("name=")):
            v1.setdefault(names, point)
    return Layout(tuple(Hierarchy(root, names) for names, root in v1.items()), unified)


def _mounts(mountinfo: str) -> list[tuple[str, str, list[str]]]:
    """Returns mount point, type and superblock options of each cgroup mount."""
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fstype, _, rest = right.partition(" ")
        if fstype in ("cgroup", "cgroup2"):
            point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), left.split(" ")[4])
            found.append((point, fstype, rest.rpartition(" ")[2].split(",")))
    return found
