"""The kernel's counts as the messages that containerd hands to its clients (``io.containerd.cgroups.v1`` and ``v2``).

Field by field what containerd's own shim for runc reports (github.com/containerd/cgroups/v3: ``cgroup1``,
``cgroup2``), so that ``ctr task metrics``, the kubelet and cAdvisor need not know the difference. ``network`` and
``cgroup_stats`` stay empty, as there.
"""

import os
from collections.abc import Iterator
from typing import TypeVar

from shimd.api.io.containerd.cgroups import v1, v2
from shimd.cgroup import Readings
from shimd.cgroup.files import flat_keyed, read

_TICKS = os.sysconf("SC_CLK_TCK")
_U64, _U32 = 2**64 - 1, 2**32 - 1

_BLKIO = {
    "sectors_recursive": "sectors_recursive",
    "io_service_bytes_recursive": "io_service_bytes_recursive",
    "io_serviced_recursive": "io_serviced_recursive",
    "io_queued_recursive": "io_queued_recursive",
    "io_service_time_recursive": "io_service_time_recursive",
    "io_wait_time_recursive": "io_wait_time_recursive",
    "io_merged_recursive": "io_merged_recursive",
    "io_time_recursive": "time_recursive",
}
_THROTTLE = {
    "io_serviced_recursive": "throttle.io_serviced",
    "io_service_bytes_recursive": "throttle.io_service_bytes",
}
# Fields of v1.MemoryStat that are named otherwise than the kernel's keys in memory.stat.
_MEMORY_KEYS = {
    "pg_pg_in": "pgpgin",
    "pg_pg_out": "pgpgout",
    "pg_fault": "pgfault",
    "pg_maj_fault": "pgmajfault",
    "hierarchical_swap_limit": "hierarchical_memsw_limit",
}
_V1_MEMORY = (
    *("cache", "rss", "rss_huge", "mapped_file", "dirty", "writeback", "pg_pg_in", "pg_pg_out", "pg_fault"),
    *("pg_maj_fault", "inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable"),
)
_V2_MEMORY = (
    *("anon", "file", "kernel_stack", "slab", "sock", "shmem", "file_mapped", "file_dirty", "file_writeback"),
    *("anon_thp", "inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable"),
    *("slab_reclaimable", "slab_unreclaimable", "pgfault", "pgmajfault", "workingset_refault", "workingset_activate"),
    *("workingset_nodereclaim", "pgrefill", "pgscan", "pgsteal", "pgactivate", "pgdeactivate", "pglazyfree"),
    *("pglazyfreed", "thp_fault_alloc", "thp_collapse_alloc"),
)
_V2_CPU = (
    *("usage_usec", "user_usec", "system_usec", "nr_periods", "nr_throttled", "throttled_usec"),
    *("nr_bursts", "burst_usec"),
)
_V2_EVENTS = ("low", "high", "max", "oom", "oom_kill", "oom_group_kill")

_RdmaEntry = TypeVar("_RdmaEntry", v1.RdmaEntry, v2.RdmaEntry)


def metrics(readings: Readings) -> v1.Metrics | v2.Metrics:
    """A file that this kernel lacks leaves its fields empty."""
    return _v1(readings.files) if readings.version == 1 else _v2(readings.files)


def _keyed(files: dict[str, str], name: str) -> dict[str, int]:
    return flat_keyed(files.get(name, ""))


def _number(files: dict[str, str], name: str, maximum: int) -> int:
    """A file of one number; ``max`` means ``maximum``."""
    text = files.get(name, "0")
    return maximum if text == "max" else int(text)


def _pick(values: dict[str, int], names: tuple[str, ...]) -> dict[str, int]:
    return {name: values.get(name, 0) for name in names}


# Version 1


def _v1(files: dict[str, str]) -> v1.Metrics:
    return v1.Metrics(
        hugetlb=[_v1_hugetlb(files, size) for size in _page_sizes(files, ".usage_in_bytes")],
        pids=_v1_pids(files),
        cpu=_v1_cpu(files),
        memory=_v1_memory(files),
        blkio=_v1_blkio(files),
        rdma=_v1_rdma(files),
        memory_oom_control=_v1_oom_control(files),
    )


def _page_sizes(files: dict[str, str], suffix: str) -> list[str]:
    names = (name for name in files if name.startswith("hugetlb.") and name.endswith(suffix))
    sizes = (name.removeprefix("hugetlb.").removesuffix(suffix) for name in names)
    return [size for size in sizes if "." not in size]


def _v1_hugetlb(files: dict[str, str], size: str) -> v1.HugetlbStat:
    usage, maximum, failures = (
        _number(files, f"hugetlb.{size}.{name}", 0) for name in ("usage_in_bytes", "max_usage_in_bytes", "failcnt")
    )
    return v1.HugetlbStat(usage=usage, max=maximum, failcnt=failures, pagesize=size)


def _v1_pids(files: dict[str, str]) -> v1.PidsStat | None:
    if "pids.current" not in files:
        return None
    # No limit is 0 here, the largest number in version 2: so says containerd's library.
    return v1.PidsStat(current=_number(files, "pids.current", 0), limit=_number(files, "pids.max", 0))


def _v1_cpu(files: dict[str, str]) -> v1.CpuStat:
    times, throttling = _keyed(files, "cpuacct.stat"), _keyed(files, "cpu.stat")
    return v1.CpuStat(
        usage=v1.CpuUsage(
            total=_number(files, "cpuacct.usage", 0),
            kernel=times.get("system", 0) * 1_000_000_000 // _TICKS,
            user=times.get("user", 0) * 1_000_000_000 // _TICKS,
            per_cpu=[int(value) for value in files.get("cpuacct.usage_percpu", "").split()],
        ),
        throttling=v1.Throttle(
            periods=throttling.get("nr_periods", 0),
            throttled_periods=throttling.get("nr_throttled", 0),
            throttled_time=throttling.get("throttled_time", 0),
        ),
    )


def _v1_memory(files: dict[str, str]) -> v1.MemoryStat | None:
    if "memory.stat" not in files:
        return None
    raw = _keyed(files, "memory.stat")
    fields = (*_V1_MEMORY, "hierarchical_memory_limit", "hierarchical_swap_limit")
    values = {field: raw.get(_MEMORY_KEYS.get(field, field), 0) for field in fields}
    values |= {f"total_{field}": raw.get(f"total_{_MEMORY_KEYS.get(field, field)}", 0) for field in _V1_MEMORY}
    return v1.MemoryStat(
        **values,
        usage=_memory_entry(files, ""),
        swap=_memory_entry(files, "memsw."),
        kernel=_memory_entry(files, "kmem."),
        kernel_tcp=_memory_entry(files, "kmem.tcp."),
    )


def _memory_entry(files: dict[str, str], kind: str) -> v1.MemoryEntry:
    limit, usage, maximum, failures = (
        _number(files, f"memory.{kind}{name}", 0)
        for name in ("limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "failcnt")
    )
    return v1.MemoryEntry(limit=limit, usage=usage, max=maximum, failcnt=failures)


def _v1_oom_control(files: dict[str, str]) -> v1.MemoryOomControl | None:
    if "memory.oom_control" not in files:
        return None
    return v1.MemoryOomControl(
        **_pick(_keyed(files, "memory.oom_control"), ("oom_kill_disable", "under_oom", "oom_kill"))
    )


def _v1_blkio(files: dict[str, str]) -> v1.BlkIoStat | None:
    """The old CFQ scheduler's counts where it is; else the throttling layer's, which sees every scheduler's."""
    if not any(name.startswith("blkio.") for name in files):
        return None
    devices = _device_names()
    for table in (_BLKIO, _THROTTLE):
        found = {field: list(_blkio(files.get(f"blkio.{name}", ""), devices)) for field, name in table.items()}
        if any(found.values()):
            return v1.BlkIoStat(**found)
    return v1.BlkIoStat()


def _blkio(text: str, devices: dict[str, str]) -> Iterator[v1.BlkIoEntry]:
    """``MAJOR:MINOR [OPERATION] VALUE``, and a ``Total`` over all devices that is left out."""
    for line in text.splitlines():
        device, *operation, value = line.split()
        if device != "Total":
            major, minor = device.split(":")
            yield v1.BlkIoEntry(
                op="".join(operation),
                device=devices.get(device, ""),
                major=int(major),
                minor=int(minor),
                value=int(value),
            )


def _device_names() -> dict[str, str]:
    rows = [line.split() for line in read("/proc/partitions").splitlines()[2:]]
    return {f"{major}:{minor}": f"/dev/{name}" for major, minor, _blocks, name in reversed(rows)}


def _v1_rdma(files: dict[str, str]) -> v1.RdmaStat | None:
    if "rdma.current" not in files:
        return None
    current, limit = (list(_rdma(files, name, v1.RdmaEntry)) for name in ("rdma.current", "rdma.max"))
    return v1.RdmaStat(current=current, limit=limit)


def _rdma(files: dict[str, str], name: str, entry: type[_RdmaEntry]) -> Iterator[_RdmaEntry]:
    for line in files.get(name, "").splitlines():
        device, *pairs = line.split()
        values = {key: _U32 if value == "max" else int(value) for key, value in (pair.split("=") for pair in pairs)}
        yield entry(device=device, hca_handles=values.get("hca_handle", 0), hca_objects=values.get("hca_object", 0))


# Version 2


def _v2(files: dict[str, str]) -> v2.Metrics:
    current, limit = (list(_rdma(files, name, v2.RdmaEntry)) for name in ("rdma.current", "rdma.max"))
    return v2.Metrics(
        pids=v2.PidsStat(current=_number(files, "pids.current", _U64), limit=_number(files, "pids.max", _U64)),
        cpu=v2.CpuStat(**_pick(_keyed(files, "cpu.stat"), _V2_CPU), psi=_psi(files, "cpu.pressure")),
        memory=_v2_memory(files),
        rdma=v2.RdmaStat(current=current, limit=limit),
        io=v2.IoStat(usage=list(_io(files.get("io.stat", ""))), psi=_psi(files, "io.pressure")),
        hugetlb=[_v2_hugetlb(files, size) for size in _page_sizes(files, ".current")],
        memory_events=_v2_events(files),
    )


def _v2_memory(files: dict[str, str]) -> v2.MemoryStat:
    if "memory.stat" not in files:
        return v2.MemoryStat()
    return v2.MemoryStat(
        **_pick(_keyed(files, "memory.stat"), _V2_MEMORY),
        usage=_number(files, "memory.current", _U64),
        usage_limit=_number(files, "memory.max", _U64),
        max_usage=_number(files, "memory.peak", _U64),
        swap_usage=_number(files, "memory.swap.current", _U64),
        swap_limit=_number(files, "memory.swap.max", _U64),
        swap_max_usage=_number(files, "memory.swap.peak", _U64),
        psi=_psi(files, "memory.pressure"),
    )


def _v2_events(files: dict[str, str]) -> v2.MemoryEvents | None:
    if "memory.events" not in files:
        return None
    return v2.MemoryEvents(**_pick(_keyed(files, "memory.events"), _V2_EVENTS))


def _v2_hugetlb(files: dict[str, str], size: str) -> v2.HugeTlbStat:
    return v2.HugeTlbStat(
        current=_number(files, f"hugetlb.{size}.current", _U64),
        max=_number(files, f"hugetlb.{size}.max", _U64),
        pagesize=size,
        failcnt=_keyed(files, f"hugetlb.{size}.events").get("max", 0),
    )


def _io(text: str) -> Iterator[v2.IoEntry]:
    """``MAJOR:MINOR rbytes=… wbytes=… rios=… wios=… …``"""
    for line in text.splitlines():
        device, *pairs = line.split()
        values = {key: int(value) for key, _, value in (pair.partition("=") for pair in pairs) if value.isdigit()}
        if values:
            major, minor = device.split(":")
            yield v2.IoEntry(int(major), int(minor), **_pick(values, ("rbytes", "wbytes", "rios", "wios")))


def _psi(files: dict[str, str], name: str) -> v2.PsiStats | None:
    """``some|full avg10=0.00 avg60=0.00 avg300=0.00 total=0`` (kernel: Documentation/accounting/psi.rst)"""
    if name not in files:
        return None
    stats = v2.PsiStats()
    for line in files[name].splitlines():
        kind, *pairs = line.split()
        values = dict(pair.split("=") for pair in pairs)
        averages = {key: float(values[key]) for key in ("avg10", "avg60", "avg300")}
        data = v2.PsiData(**averages, total=int(values["total"]))
        if kind == "some":
            stats.some = data
        elif kind == "full":
            stats.full = data
    return stats
