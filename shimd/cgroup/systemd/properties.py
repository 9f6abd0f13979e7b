"""``linux.resources`` as a unit's properties (systemd.resource-control(5)): at a reload systemd sets what it knows."""

from typing import Any

from shimd.cgroup import v2
from shimd.cgroup.resources import nonzero, section

Property = tuple[str, tuple[str, Any]]
"""Name, and a variant: its signature and its value."""
_UNLIMITED = (1 << 64) - 1
_PLAIN = {
    "memory.max": "MemoryMax",
    "memory.low": "MemoryLow",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
}
_SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
#: Of version 1, where systemd has other names for some.
_OLD = {"MemoryMax": "MemoryLimit"}
_PERIOD = 100_000


def properties(resources: dict[str, Any], version: int) -> list[Property]:
    """:param version: of cgroups: 1 or 2
    :raises InvalidArgument: a value of the wrong type"""
    found: dict[str, tuple[str, Any]] = {}
    for _controller, file, value, *_rest in v2.settings(resources):
        if name := _PLAIN.get(file):
            found[_OLD.get(name, name) if version == 1 else name] = ("t", _number(value))
        elif (name := _SETS.get(file)) and version == 2:
            found[name] = ("ay", mask(value))
        elif file == "cpu.weight" and version == 2:
            found["CPUWeight"] = ("t", int(value))
        elif file == "cpu.max":
            found.update(_quota(value))
    if version == 1:
        for name in ("MemoryLow", "MemorySwapMax"):
            found.pop(name, None)
        if shares := nonzero(section(resources, "cpu"), "shares"):
            found["CPUShares"] = ("t", min(max(shares, 2), 262144))
    return list(found.items())


def _number(value: str) -> int:
    return _UNLIMITED if value == "max" else int(value)


def _quota(value: str) -> dict[str, tuple[str, Any]]:
    """Convert ``QUOTA PERIOD``, microseconds, to microseconds a second: systemd has whole percents, here rounded up."""
    quota, _, period = value.partition(" ")
    length = int(period or _PERIOD)
    each = _UNLIMITED if quota == "max" else -(-int(quota) * 1_000_000 // length // 10_000) * 10_000
    return {"CPUQuotaPerSecUSec": ("t", each), "CPUQuotaPeriodUSec": ("t", length)}


def mask(text: str) -> bytes:
    """Convert ``0-2,5`` to a bit mask, the lowest byte first."""
    bits = 0
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        for number in range(int(first), int(last or first) + 1):
            bits |= 1 << number
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")
