"""``linux.resources`` as version 1's files (kernel: Documentation/admin-guide/cgroup-v1)."""

from typing import Any

from shimd.cgroup import common, devices
from shimd.cgroup.resources import devices_with, entries, nonzero, number, section, text
from shimd.cgroup.setting import Setting
from shimd.errors import InvalidArgument

_CPU = {  # in the order in which the kernel accepts a fresh cgroup's
    "shares": "cpu.shares",
    "realtimePeriod": "cpu.rt_period_us",
    "realtimeRuntime": "cpu.rt_runtime_us",
    "period": "cpu.cfs_period_us",
    "quota": "cpu.cfs_quota_us",
    "burst": "cpu.cfs_burst_us",
    "idle": "cpu.idle",
}
_THROTTLE = {
    "throttleReadBpsDevice": "blkio.throttle.read_bps_device",
    "throttleWriteBpsDevice": "blkio.throttle.write_bps_device",
    "throttleReadIOPSDevice": "blkio.throttle.read_iops_device",
    "throttleWriteIOPSDevice": "blkio.throttle.write_iops_device",
}


def settings(resources: dict[str, Any]) -> list[Setting]:
    """:raises InvalidArgument: a value of the wrong type, or one that version 1 has no file for"""
    if section(resources, "unified"):
        raise InvalidArgument("linux.resources: unified is for cgroup version 2; this node has version 1")
    return [
        *_cpu(section(resources, "cpu")),
        *_memory(section(resources, "memory")),
        *common.pids(section(resources, "pids")),
        *_block_io(section(resources, "blockIO")),
        *common.huge_pages(resources, "limit_in_bytes"),
        *common.rdma(resources),
        *_network(section(resources, "network")),
        *devices.settings(resources),
    ]


def _cpu(cpu: dict[str, Any]) -> list[Setting]:
    times = [(name, file, number(cpu, name)) for name, file in _CPU.items()]
    found = [
        Setting("cpu", file, str(value), optional=value == 0)
        for name, file, value in times
        if value or (value == 0 and name in ("burst", "idle"))
    ]
    return found + common.cpuset(cpu)


def _memory(memory: dict[str, Any]) -> list[Setting]:
    limit, swap = nonzero(memory, "limit"), nonzero(memory, "swap")
    if limit == -1 and swap is None:
        swap = -1  # or the old sum would bound what shall have no bound
    values = {
        "memory.limit_in_bytes": limit,
        "memory.memsw.limit_in_bytes": swap,
        "memory.soft_limit_in_bytes": nonzero(memory, "reservation"),
        "memory.kmem.tcp.limit_in_bytes": nonzero(memory, "kernelTCP"),
        "memory.swappiness": number(memory, "swappiness"),
        "memory.oom_control": 1 if memory.get("disableOOMKiller") else None,
    }  # "kernel" is left out: kernels since 5.16 have no such limit, and runc ignores it too
    return [
        Setting("memory", file, str(value), optional=value == -1) for file, value in values.items() if value is not None
    ]


def _block_io(block: dict[str, Any]) -> list[Setting]:
    found = []
    for name, file in (("weight", "weight"), ("leafWeight", "leaf_weight")):
        if weight := nonzero(block, name):
            found.append(_weight(file, str(weight)))
        for device, value in devices_with(block, "weightDevice", name):
            if value:
                found.append(_weight(f"{file}_device", f"{device} {value}"))
    for name, file in _THROTTLE.items():
        found += [Setting("blkio", file, f"{device} {rate}") for device, rate in devices_with(block, name, "rate")]
    return found


def _weight(file: str, value: str) -> Setting:
    """Set a weight in CFQ's file, or since Linux 5, which has no CFQ, in the one of the BFQ scheduler."""
    return Setting("blkio", f"blkio.{file}", value, instead=Setting("blkio", f"blkio.bfq.{file}", value))


def _network(network: dict[str, Any]) -> list[Setting]:
    class_id = nonzero(network, "classID")
    found = [] if class_id is None else [Setting("net_cls", "net_cls.classid", str(class_id))]
    return found + [
        Setting("net_prio", "net_prio.ifpriomap", f"{text(entry, 'name')} {number(entry, 'priority') or 0}")
        for entry in entries(network, "priorities")
    ]
