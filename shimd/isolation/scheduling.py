"""The kernel's treatment of a process: scheduler, I/O priority, personality, memory policy, processors, as calls.

Taken before its privileges are: most of it needs them. Values are those of <linux/sched.h>, <linux/ioprio.h>,
<linux/personality.h> and <linux/mempolicy.h>; what makes no sense together is the kernel's to refuse.
"""

import struct
from typing import Any

from shimd.errors import InvalidArgument
from shimd.oci import Process, Spec
from shimd.protocol.system_calls import SystemCalls

_POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}  # fmt: skip
_SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 1, "SCHED_FLAG_RECLAIM": 2, "SCHED_FLAG_DL_OVERRUN": 4, "SCHED_FLAG_KEEP_POLICY": 8,
    "SCHED_FLAG_KEEP_PARAMS": 16, "SCHED_FLAG_UTIL_CLAMP_MIN": 32, "SCHED_FLAG_UTIL_CLAMP_MAX": 64,
}  # fmt: skip
_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_CLASS_SHIFT, _WHO_PROCESS = 13, 1
_PERSONALITIES = {"LINUX": 0, "LINUX32": 8}
_MODES = {
    "MPOL_DEFAULT": 0, "MPOL_PREFERRED": 1, "MPOL_BIND": 2, "MPOL_INTERLEAVE": 3, "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5, "MPOL_WEIGHTED_INTERLEAVE": 6,
}  # fmt: skip
_MODE_FLAGS = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}
#: struct sched_attr, its first version.
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
#: Processors and memory nodes are numbered below this (CONFIG_NR_CPUS and MAX_NUMNODES are smaller).
_MOST = 1 << 16


def treat(calls: SystemCalls, spec: Spec, process: Process, further: bool) -> None:
    """Add what a process's configuration asks for.

    :param further: it is an exec, which has its container's where it has none of its own
    :raises InvalidArgument: a value is unknown
    """
    own: dict[str, Any] = {**process}
    whole: dict[str, Any] = {**spec.get("process", {}), **own} if further else own
    linux: dict[str, Any] = {**spec.get("linux", {})}
    if scheduler := whole.get("scheduler"):
        _schedule(calls, scheduler)
    if priority := whole.get("ioPriority"):
        _prioritise(calls, priority)
    if personality := linux.get("personality"):
        domain = _named(_PERSONALITIES, personality.get("domain"), "linux.personality.domain")
        calls.add("personality", domain, says="cannot set linux.personality")
    if policy := linux.get("memoryPolicy"):
        _place_memory(calls, policy)
    if further and (processors := whole.get("execCPUAffinity", {}).get("final")):
        mask = _mask(processors, "process.execCPUAffinity.final")
        calls.add("sched_setaffinity", 0, len(mask), mask, says="cannot set process.execCPUAffinity.final")


def _schedule(calls: SystemCalls, scheduler: dict[str, Any]) -> None:
    policy = _named(_POLICIES, scheduler.get("policy"), "process.scheduler.policy")
    flags = _flags(_SCHED_FLAGS, scheduler.get("flags", []), "process.scheduler.flags")
    times = (scheduler.get(name, 0) for name in ("runtime", "deadline", "period"))
    try:
        attributes = _ATTRIBUTES.pack(
            _ATTRIBUTES.size, policy, flags, scheduler.get("nice", 0), scheduler.get("priority", 0), *times
        )
    except struct.error as error:
        raise InvalidArgument(f"process.scheduler: {error}") from None
    calls.add("sched_setattr", 0, attributes, 0, says="cannot set process.scheduler")


def _prioritise(calls: SystemCalls, priority: dict[str, Any]) -> None:
    kind = _named(_CLASSES, priority.get("class"), "process.ioPriority.class")
    value = priority.get("priority", 0)
    if not 0 <= value <= 7:
        raise InvalidArgument(f"process.ioPriority.priority: {value} is not within 0 and 7")
    calls.add("ioprio_set", _WHO_PROCESS, 0, kind << _CLASS_SHIFT | value, says="cannot set process.ioPriority")


def _place_memory(calls: SystemCalls, policy: dict[str, Any]) -> None:
    mode = _named(_MODES, policy.get("mode"), "linux.memoryPolicy.mode")
    mode |= _flags(_MODE_FLAGS, policy.get("flags", []), "linux.memoryPolicy.flags")
    mask = _mask(policy.get("nodes", ""), "linux.memoryPolicy.nodes")
    # The kernel takes one bit less than it is told.
    calls.add("set_mempolicy", mode, mask or 0, len(mask) * 8 + 1 if mask else 0, says="cannot set linux.memoryPolicy")


def _named(values: dict[str, int], name: object, field: str) -> int:
    if not isinstance(name, str) or name not in values:
        raise InvalidArgument(f"{field}: {name} is not known")
    return values[name]


def _flags(values: dict[str, int], names: list[str], field: str) -> int:
    flags = 0
    for name in names:
        flags |= _named(values, name, field)
    return flags


def _mask(ranges: str, field: str) -> bytes:
    """``0-3,7`` as a bit mask for the kernel, of whole words; empty for none."""
    bits = 0
    try:
        for part in filter(None, ranges.split(",")):
            first, _, last = part.partition("-")
            low, high = int(first), int(last or first)
            if not 0 <= low <= high < _MOST:
                raise ValueError
            bits |= (1 << high + 1) - (1 << low)
    except ValueError:
        raise InvalidArgument(f"{field}: {ranges} is not a list of numbers and ranges of them") from None
    return bits.to_bytes((bits.bit_length() + 63) // 64 * 8, "little")
