"""``linux.resources`` as version 2's files (kernel: Documentation/admin-guide/cgroup-v2.rst).

The spec speaks version 1; where the two differ, values are converted as runc 1.1 does, so that a pod gets the same
share of the node from either runtime. ``realtime…``, ``kernel…``, ``swappiness``, ``disableOOMKiller``, ``leafWeight``
and ``network`` have no file here and are ignored, as there.
"""

from typing import Any

from shimd.cgroup import common
from shimd.cgroup.resources import devices_with, nonzero, number, section, text
from shimd.cgroup.setting import Setting
from shimd.errors import InvalidArgument

_THROTTLE = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}


def settings(resources: dict[str, Any]) -> list[Setting]:
    """:raises InvalidArgument: a value of the wrong type, or one that makes no sense"""
    return [
        *_cpu(section(resources, "cpu")),
        *_memory(section(resources, "memory")),
        *common.pids(section(resources, "pids")),
        *_block_io(section(resources, "blockIO")),
        *common.huge_pages(resources, "max"),
        *common.rdma(resources),
        *_unified(section(resources, "unified")),
    ]


def cpu_weight(shares: int) -> int:
    """Convert shares, 2…262144 (default 1024), to a weight, 1…10000, linearly: 1024 becomes 39."""
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142


def io_weight(weight: int) -> int:
    """Convert a weight of version 1, 10…1000, to 1…10000, linearly."""
    return 1 + (min(max(weight, 10), 1000) - 10) * 9999 // 990


def _cpu(cpu: dict[str, Any]) -> list[Setting]:
    shares, burst, idle = nonzero(cpu, "shares"), number(cpu, "burst"), number(cpu, "idle")
    found = [] if shares is None else [Setting("cpu", "cpu.weight", str(cpu_weight(shares)))]
    if maximum := _cpu_max(nonzero(cpu, "quota"), nonzero(cpu, "period")):
        found.append(Setting("cpu", "cpu.max", maximum))
    for file, value in (("cpu.max.burst", burst), ("cpu.idle", idle)):
        if value is not None:
            found.append(Setting("cpu", file, str(value), optional=value == 0))
    return found + common.cpuset(cpu)


def _cpu_max(quota: int | None, period: int | None) -> str:
    """Returns ``QUOTA PERIOD``; without a period, the kernel keeps the one that it has."""
    if quota is None and period is None:
        return ""
    limit = str(quota) if quota is not None and quota > 0 else "max"
    return limit if period is None else f"{limit} {period}"


def _memory(memory: dict[str, Any]) -> list[Setting]:
    limit, reservation = nonzero(memory, "limit"), nonzero(memory, "reservation")
    swap = _swap(limit, nonzero(memory, "swap"))
    values = {"memory.max": limit, "memory.swap.max": swap, "memory.low": reservation}
    return [
        Setting("memory", file, "max" if value == -1 else str(value), optional=value in (-1, 0))
        for file, value in values.items()
        if value is not None
    ]


def _swap(limit: int | None, both: int | None) -> int | None:
    """Convert a limit of memory and swap together, which the spec has from version 1, to one of swap alone."""
    if both is None:
        return -1 if limit == -1 else None
    if both == -1:
        return -1
    if limit is None or limit == -1:
        raise InvalidArgument(f"linux.resources: memory.swap {both} without memory.limit")
    if both < limit:
        raise InvalidArgument(f"linux.resources: memory.swap {both} is below memory.limit {limit}, which it includes")
    return both - limit


def _block_io(block: dict[str, Any]) -> list[Setting]:
    found = []
    if weight := nonzero(block, "weight"):
        found.append(_weight("", weight, "default "))
    for device, value in devices_with(block, "weightDevice", "weight"):
        found.append(_weight(f"{device} ", value, f"{device} "))
    for name, key in _THROTTLE.items():
        for device, rate in devices_with(block, name, "rate"):
            found.append(Setting("io", "io.max", f"{device} {key}={rate or 'max'}"))
    return found


def _weight(bfq_prefix: str, weight: int, prefix: str) -> Setting:
    """Set a weight in the BFQ scheduler's file if it is there (with the spec's own range), else in the cost model's."""
    other = Setting("io", "io.weight", f"{prefix}{io_weight(weight)}")
    return Setting("io", "io.bfq.weight", f"{bfq_prefix}{weight}", instead=other)


def _unified(values: dict[str, Any]) -> list[Setting]:
    """Set files by their names. They come last, so that they win."""
    for file in values:
        if "/" in file or "." not in file:
            raise InvalidArgument(f"linux.resources: unified: {file!r} is not the name of a cgroup file")
    return [Setting(file.partition(".")[0], file, text(values, file)) for file in values]
