"""The number of processors that shimd may use."""

import os

from shimd.cgroup import layout
from shimd.cgroup.files import read_if_there
from shimd.cgroup.layout import Layout


def processors() -> int:
    """Returns how many processors this process may use: those of sched_setaffinity(2), within the quotas of its
    cgroup and of those above. At least 1.
    """
    allowed = len(os.sched_getaffinity(0))
    where = layout.current()
    with open("/proc/self/cgroup") as file:
        quotas = _quotas(where, file.read())
    return max(1, min([allowed, *quotas]))


def _quotas(where: Layout, own: str) -> list[int]:
    """Returns the processors that our cgroup and each above it grant, rounded up, as far as they are in sight.

    :param own: ``/proc/self/cgroup``: lines of ``ID:CONTROLLERS:PATH`` (cgroups(7))
    """
    for line in own.splitlines():
        _id, controllers, path = line.split(":", 2)
        if where.is_v2 and not controllers:
            return [quota for directory in _way(where.unified or "", path) if (quota := _v2(directory))]
        for hierarchy in where.v1:
            if "cpu" in controllers.split(",") and "cpu" in hierarchy.controllers:
                return [quota for directory in _way(hierarchy.root, path) if (quota := _v1(directory))]
    return []


def _way(root: str, path: str) -> list[str]:
    names = [name for name in path.split("/") if name]
    return ["/".join([root, *names[:depth]]) for depth in range(len(names) + 1)]


def _v2(directory: str) -> int | None:
    quota, _, period = (read_if_there(f"{directory}/cpu.max") or "max 1").partition(" ")
    return None if quota == "max" else _whole(int(quota), int(period))


def _v1(directory: str) -> int | None:
    quota = int(read_if_there(f"{directory}/cpu.cfs_quota_us") or -1)
    return None if quota < 0 else _whole(quota, int(read_if_there(f"{directory}/cpu.cfs_period_us") or quota))


def _whole(quota: int, period: int) -> int:
    return max(1, -(-quota // period))
