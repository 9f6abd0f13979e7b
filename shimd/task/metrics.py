"""What a container has used, in containerd's types: ``io.containerd.cgroups.v1.Metrics`` or ``…v2.Metrics``.

Same fields from the same files as github.com/containerd/cgroups reads, so that `ctr task metrics` and the kubelet see
of a Wasm container what they see of a native one. A file that this kernel lacks leaves its fields out.
"""

import os
from collections.abc import Callable, Iterator

from betterproto2 import Message

from shimd.api.io.containerd.cgroups import v1, v2
from shimd.cgroup import Cgroup

#: "max" and v1's page counter maximum, as the types have it.
_UNLIMITED = (1 << 64) - 1
_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def metrics(cgroup: Cgroup) -> Message:
    """Read all statistics of a cgroup."""
    return _v2(cgroup) if cgroup.unified else _v1(cgroup)


class _Files:
    """The files of one controller's directory; absent ones read as nothing."""

    def __init__(self, directory: str | None) -> None:
        self._directory = directory

    def text(self, name: str) -> str:
        if self._directory is None:
            return ""
        try:
            with open(f"{self._directory}/{name}") as file:
                return file.read()
        except OSError:
            return ""

    def number(self, name: str) -> int:
        text = self.text(name).strip()
        return _UNLIMITED if text == "max" else int(text or 0)

    def table(self, name: str) -> dict[str, int]:
        """Lines of ``key value``."""
        pairs = (line.split() for line in self.text(name).splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}

    def __bool__(self) -> bool:
        return self._directory is not None


def _files(cgroup: Cgroup, controller: str) -> _Files:
    return _Files(cgroup.directory(controller))


def _v1(cgroup: Cgroup) -> v1.Metrics:
    pids, memory = _files(cgroup, "pids"), _files(cgroup, "memory")
    return v1.Metrics(
        pids=v1.PidsStat(current=pids.number("pids.current"), limit=_no_max(pids.number("pids.max"))) if pids else None,
        cpu=_v1_cpu(_files(cgroup, "cpu"), _files(cgroup, "cpuacct")),
        memory=_v1_memory(memory) if memory else None,
        memory_oom_control=_v1_oom(memory) if memory else None,
        blkio=_v1_blkio(_files(cgroup, "blkio")),
        hugetlb=list(_v1_hugetlb(cgroup.directory("hugetlb"))),
    )


def _no_max(value: int) -> int:
    return 0 if value == _UNLIMITED else value


def _v1_cpu(cpu: _Files, account: _Files) -> v1.CpuStat:
    stat, throttle = account.table("cpuacct.stat"), cpu.table("cpu.stat")
    return v1.CpuStat(
        usage=v1.CpuUsage(
            total=account.number("cpuacct.usage"),
            kernel=stat.get("system", 0) * _TICK,
            user=stat.get("user", 0) * _TICK,
            per_cpu=[int(word) for word in account.text("cpuacct.usage_percpu").split()],
        ),
        throttling=v1.Throttle(
            periods=throttle.get("nr_periods", 0),
            throttled_periods=throttle.get("nr_throttled", 0),
            throttled_time=throttle.get("throttled_time", 0),
        ),
    )


#: Names in memory.stat that the message spells otherwise.
_RENAMED = {
    f"{prefix}{kernel}": f"{prefix}{message}"
    for prefix in ("", "total_")
    for kernel, message in (
        ("pgpgin", "pg_pg_in"),
        ("pgpgout", "pg_pg_out"),
        ("pgfault", "pg_fault"),
        ("pgmajfault", "pg_maj_fault"),
    )
} | {"hierarchical_memsw_limit": "hierarchical_swap_limit"}


def _v1_memory(files: _Files) -> v1.MemoryStat:
    known = v1.MemoryStat.__dataclass_fields__
    table = {_RENAMED.get(name, name): value for name, value in files.table("memory.stat").items()}
    stat = v1.MemoryStat(**{name: value for name, value in table.items() if name in known})
    for field, prefix in (("usage", ""), ("swap", "memsw."), ("kernel", "kmem."), ("kernel_tcp", "kmem.tcp.")):
        setattr(stat, field, _v1_entry(files, f"memory.{prefix}"))
    return stat


def _v1_entry(files: _Files, prefix: str) -> v1.MemoryEntry:
    return v1.MemoryEntry(
        limit=files.number(f"{prefix}limit_in_bytes"),
        usage=files.number(f"{prefix}usage_in_bytes"),
        max=files.number(f"{prefix}max_usage_in_bytes"),
        failcnt=files.number(f"{prefix}failcnt"),
    )


def _v1_oom(files: _Files) -> v1.MemoryOomControl:
    table = files.table("memory.oom_control")
    return v1.MemoryOomControl(
        oom_kill_disable=table.get("oom_kill_disable", 0),
        under_oom=table.get("under_oom", 0),
        oom_kill=table.get("oom_kill", 0),
    )


def _v1_blkio(files: _Files) -> v1.BlkIoStat | None:
    if not files:
        return None
    return v1.BlkIoStat(
        io_service_bytes_recursive=list(_v1_blkio_entries(files.text("blkio.throttle.io_service_bytes_recursive"))),
        io_serviced_recursive=list(_v1_blkio_entries(files.text("blkio.throttle.io_serviced_recursive"))),
    )


def _v1_blkio_entries(text: str) -> Iterator[v1.BlkIoEntry]:
    """Lines of ``major:minor operation value``; the total line has no device."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3:
            major, minor = words[0].split(":")
            yield v1.BlkIoEntry(op=words[1], device="", major=int(major), minor=int(minor), value=int(words[2]))


def _page_sizes(directory: str | None, suffix: str) -> Iterator[str]:
    if directory is not None:
        for name in sorted(os.listdir(directory)):
            if name.startswith("hugetlb.") and name.endswith(suffix) and name.count(".") == 1 + suffix.count("."):
                yield name.split(".")[1]


def _v1_hugetlb(directory: str | None) -> Iterator[v1.HugetlbStat]:
    files = _Files(directory)
    for size in _page_sizes(directory, ".usage_in_bytes"):
        yield v1.HugetlbStat(
            usage=files.number(f"hugetlb.{size}.usage_in_bytes"),
            max=files.number(f"hugetlb.{size}.max_usage_in_bytes"),
            failcnt=files.number(f"hugetlb.{size}.failcnt"),
            pagesize=size,
        )


def _v2(cgroup: Cgroup) -> v2.Metrics:
    directory = cgroup.directories[0]
    files = _Files(directory)
    events, cpu = files.table("memory.events"), files.table("cpu.stat")
    return v2.Metrics(
        pids=v2.PidsStat(current=files.number("pids.current"), limit=_no_max(files.number("pids.max"))),
        cpu=v2.CpuStat(**_known(v2.CpuStat, cpu)),
        memory=_v2_memory(files),
        memory_events=v2.MemoryEvents(**_known(v2.MemoryEvents, events)),
        io=v2.IoStat(usage=list(_v2_io(files.text("io.stat")))),
        hugetlb=list(_v2_hugetlb(directory)),
    )


def _known(message: Callable[..., Message], table: dict[str, int]) -> dict[str, int]:
    fields = getattr(message, "__dataclass_fields__")  # noqa: B009 — of a generated class, which is not typed as one
    return {name: value for name, value in table.items() if name in fields}


def _v2_memory(files: _Files) -> v2.MemoryStat:
    stat = v2.MemoryStat(**_known(v2.MemoryStat, files.table("memory.stat")))
    stat.usage, stat.usage_limit = files.number("memory.current"), files.number("memory.max")
    stat.swap_usage, stat.swap_limit = files.number("memory.swap.current"), files.number("memory.swap.max")
    stat.max_usage, stat.swap_max_usage = files.number("memory.peak"), files.number("memory.swap.peak")
    return stat


def _v2_io(text: str) -> Iterator[v2.IoEntry]:
    """Lines of ``major:minor rbytes=… wbytes=… rios=… wios=…``."""
    for line in text.splitlines():
        device, *pairs = line.split()
        values = dict(pair.split("=") for pair in pairs if "=" in pair)
        major, minor = device.split(":")
        numbers = {name: int(values.get(name, 0)) for name in ("rbytes", "wbytes", "rios", "wios")}
        yield v2.IoEntry(major=int(major), minor=int(minor), **numbers)


def _v2_hugetlb(directory: str) -> Iterator[v2.HugeTlbStat]:
    files = _Files(directory)
    for size in _page_sizes(directory, ".current"):
        yield v2.HugeTlbStat(
            current=files.number(f"hugetlb.{size}.current"), max=files.number(f"hugetlb.{size}.max"), pagesize=size
        )
