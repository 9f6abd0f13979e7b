"""The runtime spec's ``linux.resources`` as writes to cgroup files (config-linux.md, "Control groups").

Pure: no file is touched here. Conversions from v1's terms to v2's are those of runc 1.1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from shimd.errors import InvalidArgument

Resources = dict[str, Any]


@dataclass(frozen=True)
class Write:
    controller: str
    file: str
    value: str
    optional: bool = False
    """Fails silently where the kernel lacks the file."""


def v1(resources: Resources) -> list[Write]:
    """Writes for v1 controllers, in an order that raises and lowers limits alike."""
    return _collect((_v1_cpu, _v1_memory, _pids, _v1_blkio, _v1_devices, _hugetlb_v1, _rdma), resources)


def v2(resources: Resources) -> list[Write]:
    """Writes for the unified hierarchy; ``unified`` entries of the spec come last and win."""
    return _collect((_v2_cpu, _v2_memory, _pids, _v2_io, _hugetlb_v2, _rdma, _unified), resources)


def _collect(parts: tuple[Callable[[Resources], Iterator[Write]], ...], resources: Resources) -> list[Write]:
    try:
        return [write for part in parts for write in part(resources)]
    except (TypeError, AttributeError, ValueError, KeyError) as error:
        raise InvalidArgument(f"resources are malformed: {error!r}") from None


def _given(table: Resources, section: str, name: str) -> int | None:
    """A number that is set: absent and zero mean "leave it"."""
    value = (table.get(section) or {}).get(name)
    return int(value) if value else None


def _v1_cpu(resources: Resources) -> Iterator[Write]:
    for name, file in (
        ("shares", "cpu.shares"),
        ("period", "cpu.cfs_period_us"),
        ("quota", "cpu.cfs_quota_us"),
        ("burst", "cpu.cfs_burst_us"),
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
    ):
        if (value := _given(resources, "cpu", name)) is not None:
            yield Write("cpu", file, str(value), optional=name.startswith("realtime"))
    yield from _cpuset(resources)


def _cpuset(resources: Resources) -> Iterator[Write]:
    cpu = resources.get("cpu") or {}
    for name in ("cpus", "mems"):
        if cpu.get(name):
            yield Write("cpuset", f"cpuset.{name}", str(cpu[name]))


def _v1_memory(resources: Resources) -> Iterator[Write]:
    limit, swap = _given(resources, "memory", "limit"), _given(resources, "memory", "swap")
    writes = []
    if limit is not None:
        writes.append(Write("memory", "memory.limit_in_bytes", str(limit)))
    if swap is not None:
        writes.append(Write("memory", "memory.memsw.limit_in_bytes", str(swap), optional=swap == limit))
    yield from writes
    for name, file in (("reservation", "memory.soft_limit_in_bytes"), ("kernelTCP", "memory.kmem.tcp.limit_in_bytes")):
        if (value := _given(resources, "memory", name)) is not None:
            yield Write("memory", file, str(value), optional=name == "kernelTCP")
    swappiness = (resources.get("memory") or {}).get("swappiness")
    if swappiness is not None:
        yield Write("memory", "memory.swappiness", str(swappiness))
    if (resources.get("memory") or {}).get("disableOOMKiller"):
        yield Write("memory", "memory.oom_control", "1")


def _pids(resources: Resources) -> Iterator[Write]:
    if (limit := _given(resources, "pids", "limit")) is not None:
        yield Write("pids", "pids.max", str(limit) if limit > 0 else "max")


_THROTTLE = {
    "throttleReadBpsDevice": ("read_bps_device", "rbps"),
    "throttleWriteBpsDevice": ("write_bps_device", "wbps"),
    "throttleReadIOPSDevice": ("read_iops_device", "riops"),
    "throttleWriteIOPSDevice": ("write_iops_device", "wiops"),
}


def _v1_blkio(resources: Resources) -> Iterator[Write]:
    if (weight := _given(resources, "blockIO", "weight")) is not None:
        yield Write("blkio", "blkio.bfq.weight", str(weight), optional=True)
    for name, (file, _key) in _THROTTLE.items():
        for device in (resources.get("blockIO") or {}).get(name) or []:
            value = f"{device['major']}:{device['minor']} {device['rate']}"
            yield Write("blkio", f"blkio.throttle.{file}", value)


def _v1_devices(resources: Resources) -> Iterator[Write]:
    for rule in resources.get("devices") or []:
        kind = {"": "a", None: "a"}.get(rule.get("type"), rule.get("type"))
        major, minor = (_device_number(rule.get(name)) for name in ("major", "minor"))
        file = "devices.allow" if rule.get("allow") else "devices.deny"
        value = "a" if kind == "a" else f"{kind} {major}:{minor} {rule.get('access') or 'rwm'}"
        yield Write("devices", file, value)


def _device_number(value: int | None) -> str:
    return "*" if value is None or value < 0 else str(value)


def _hugetlb_v1(resources: Resources) -> Iterator[Write]:
    for entry in resources.get("hugepageLimits") or []:
        yield Write("hugetlb", f"hugetlb.{entry['pageSize']}.limit_in_bytes", str(entry["limit"]), optional=True)


def _hugetlb_v2(resources: Resources) -> Iterator[Write]:
    for entry in resources.get("hugepageLimits") or []:
        yield Write("hugetlb", f"hugetlb.{entry['pageSize']}.max", str(entry["limit"]), optional=True)


def _rdma(resources: Resources) -> Iterator[Write]:
    for device, entry in (resources.get("rdma") or {}).items():
        names = (("hca_handle", "hcaHandles"), ("hca_object", "hcaObjects"))
        value = " ".join(f"{key}={entry[name]}" for key, name in names if entry.get(name) is not None)
        yield Write("rdma", "rdma.max", f"{device} {value}")


def _v2_cpu(resources: Resources) -> Iterator[Write]:
    if (shares := _given(resources, "cpu", "shares")) is not None:
        yield Write("cpu", "cpu.weight", str(weight_of(shares)))
    quota, period = _given(resources, "cpu", "quota"), _given(resources, "cpu", "period")
    if quota is not None or period is not None:
        yield Write("cpu", "cpu.max", f"{quota if quota and quota > 0 else 'max'} {period or 100000}")
    if (burst := _given(resources, "cpu", "burst")) is not None:
        yield Write("cpu", "cpu.max.burst", str(burst))
    yield from _cpuset(resources)


def weight_of(shares: int) -> int:
    """cpu.shares [2, 262144] to cpu.weight [1, 10000], linearly, as runc and systemd's container tools do."""
    return 1 + ((min(max(shares, 2), 262144) - 2) * 9999) // 262142


def _v2_memory(resources: Resources) -> Iterator[Write]:
    limit, swap = _given(resources, "memory", "limit"), _given(resources, "memory", "swap")
    if swap is not None:
        yield Write("memory", "memory.swap.max", _swap(limit, swap), optional=True)
    if limit is not None:
        yield Write("memory", "memory.max", str(limit) if limit > 0 else "max")
    if (reservation := _given(resources, "memory", "reservation")) is not None:
        yield Write("memory", "memory.low", str(reservation) if reservation > 0 else "max")


def _swap(limit: int | None, swap: int) -> str:
    """v1 limits memory and swap together, v2 swap alone."""
    if swap < 0:
        return "max"
    if limit is None or limit < 0:
        raise InvalidArgument("memory.swap needs memory.limit on cgroup v2")
    if swap < limit:
        raise InvalidArgument(f"memory.swap {swap} is less than memory.limit {limit}: it counts both")
    return str(swap - limit)


def _v2_io(resources: Resources) -> Iterator[Write]:
    if (weight := _given(resources, "blockIO", "weight")) is not None:
        yield Write("io", "io.bfq.weight", str(weight), optional=True)
        yield Write("io", "io.weight", f"default {1 + (weight - 10) * 9999 // 990}", optional=True)
    for name, (_file, key) in _THROTTLE.items():
        for device in (resources.get("blockIO") or {}).get(name) or []:
            yield Write("io", "io.max", f"{device['major']}:{device['minor']} {key}={device['rate']}")


def _unified(resources: Resources) -> Iterator[Write]:
    for file, value in (resources.get("unified") or {}).items():
        if "/" in file:
            raise InvalidArgument(f"unified resource {file} is not a file's name")
        yield Write(file.partition(".")[0], file, str(value))
