"""Reading what the kernel counts: the files as they are."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from shimd.cgroup.files import read_if_there

V1_FILES = {
    "pids": ("pids.current", "pids.max"),
    "cpu": ("cpu.stat",),
    "cpuacct": ("cpuacct.stat", "cpuacct.usage", "cpuacct.usage_percpu"),
    "memory": (
        "memory.stat",
        "memory.oom_control",
        *(
            f"memory.{kind}{what}"
            for kind in ("", "memsw.", "kmem.", "kmem.tcp.")
            for what in ("usage_in_bytes", "max_usage_in_bytes", "failcnt", "limit_in_bytes")
        ),
    ),
    "blkio": (
        "blkio.sectors_recursive",
        "blkio.io_service_bytes_recursive",
        "blkio.io_serviced_recursive",
        "blkio.io_queued_recursive",
        "blkio.io_service_time_recursive",
        "blkio.io_wait_time_recursive",
        "blkio.io_merged_recursive",
        "blkio.time_recursive",
        "blkio.throttle.io_serviced",
        "blkio.throttle.io_service_bytes",
    ),
    "rdma": ("rdma.current", "rdma.max"),
}
V2_FILES = (
    *("pids.current", "pids.max", "cpu.stat", "cpu.pressure"),
    *("memory.stat", "memory.events", "memory.pressure", "memory.current", "memory.max", "memory.peak"),
    *("memory.swap.current", "memory.swap.max", "memory.swap.peak"),
    *("io.stat", "io.pressure", "rdma.current", "rdma.max"),
)


@dataclass(frozen=True)
class Readings:
    """The text of each statistics file that there is, by name, at the time of reading."""

    version: int
    files: dict[str, str]


def read_v1(find: dict[str, str]) -> Readings:
    """Read the counters of version 1; ``find`` has the directory of each controller."""
    files: dict[str, str] = {}
    for controller, names in V1_FILES.items():
        if controller in find:
            files |= _read(find[controller], names)
    if "hugetlb" in find:
        files |= _read(find["hugetlb"], _huge_pages(find["hugetlb"]))
    return Readings(1, files)


def read_v2(directory: str) -> Readings:
    return Readings(2, _read(directory, [*V2_FILES, *_huge_pages(directory)]))


def _read(directory: str, names: Iterable[str]) -> dict[str, str]:
    found = ((name, read_if_there(f"{directory}/{name}")) for name in names)
    return {name: text for name, text in found if text is not None}


def _huge_pages(directory: str) -> list[str]:
    """List the files about huge pages, whose names hold the page size; containerd's metrics have no reserved ones."""
    return sorted(name for name in os.listdir(directory) if name.startswith("hugetlb.") and ".rsvd." not in name)
