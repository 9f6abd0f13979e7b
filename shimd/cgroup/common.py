"""Resources whose files are the same in both versions of cgroups, or differ only in a suffix."""

from typing import Any

from shimd.cgroup.resources import entries, nonzero, number, section, text
from shimd.cgroup.setting import Setting


def cpuset(cpu: dict[str, Any]) -> list[Setting]:
    """``cpus`` and ``mems`` of ``linux.resources.cpu`` (cgroup-v1/cpusets.rst)."""
    values = [(name, text(cpu, name)) for name in ("cpus", "mems")]
    return [Setting("cpuset", f"cpuset.{name}", value) for name, value in values if value]


def pids(limits: dict[str, Any]) -> list[Setting]:
    """``linux.resources.pids`` (cgroup-v1/pids.rst); a negative limit is none."""
    limit = nonzero(limits, "limit")
    return [] if limit is None else [Setting("pids", "pids.max", str(limit) if limit > 0 else "max", limit < 0)]


def huge_pages(resources: dict[str, Any], suffix: str) -> list[Setting]:
    """``linux.resources.hugepageLimits``: of pages in use, and where the kernel has it of reserved ones, too.

    :param suffix: the limit's name in the files of this version
    """
    found = []
    for entry in entries(resources, "hugepageLimits"):
        size, limit = text(entry, "pageSize"), number(entry, "limit") or 0
        found.append(Setting("hugetlb", f"hugetlb.{size}.{suffix}", str(limit), optional=limit == 0))
        found.append(Setting("hugetlb", f"hugetlb.{size}.rsvd.{suffix}", str(limit), optional=True))
    return found


def rdma(resources: dict[str, Any]) -> list[Setting]:
    """``linux.resources.rdma``, by device (cgroup-v1/rdma.rst)."""
    found = []
    devices = section(resources, "rdma")
    for device in devices:
        limits = section(devices, device)
        pairs = (("hca_handle", number(limits, "hcaHandles")), ("hca_object", number(limits, "hcaObjects")))
        value = " ".join([device, *(f"{name}={limit}" for name, limit in pairs if limit is not None)])
        found.append(Setting("rdma", "rdma.max", value))
    return found
