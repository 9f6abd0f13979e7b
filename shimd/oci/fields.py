"""Every field of the runtime specification (:data:`shimd.oci.VERSION`), and what becomes of it: the table that
``docs/oci.md`` shows, by which a ``config.json`` is checked, and fields are refused.

Fields that nobody knows are ignored, as the specification wants it (config.md, "Extensibility").
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from typing import Any

from shimd.errors import InvalidArgument, Unimplemented
from shimd.oci import Spec

#: A line is a field (braces stand for each of what is in them), its kind, what becomes of it, and a remark or the
#: sentence of its refusal. An exclamation mark: it must be there, if what it is in is.
_TABLE = """
ociVersion  string  applied  any version
annotations  texts  applied  those that shimd knows
hostname  string  applied
domainname  string  applied
root  object  applied
root.path  string  applied
root.readonly  boolean  applied

process  object  applied
process.terminal  boolean  applied
process.consoleSize  object  applied
process.consoleSize.{height,width}  u64  applied
process.cwd  string  applied
process.env  strings  applied
process.args  strings  applied
process.commandLine  string  elsewhere  Windows
process.user  object  applied
process.user.{uid,gid,umask}  u32  applied
process.user.additionalGids  u32s  applied
process.user.username  string  elsewhere  Windows
process.capabilities  object  applied
process.capabilities.{bounding,effective,permitted,inheritable,ambient}  strings  applied
process.rlimits  objects  applied
process.rlimits[].type  string!  applied
process.rlimits[].{soft,hard}  u64!  applied
process.noNewPrivileges  boolean  applied  always set: a guest executes nothing
process.apparmorProfile  string  applied  refused where the kernel has no AppArmor
process.selinuxLabel  string  applied  refused where the kernel has no SELinux
process.oomScoreAdj  i64  applied
process.scheduler  object  applied
process.scheduler.policy  string  applied
process.scheduler.flags  strings  applied
process.scheduler.{nice,priority}  i32  applied
process.scheduler.{runtime,deadline,period}  u64  applied
process.ioPriority  object  applied
process.ioPriority.class  string  applied
process.ioPriority.priority  i32  applied
process.execCPUAffinity  object  applied
process.execCPUAffinity.initial  string  elsewhere  native containers, whose execs move into the cgroup
process.execCPUAffinity.final  string  applied

mounts  objects  applied
mounts[].destination  string!  applied
mounts[].{type,source}  string  applied
mounts[].options  strings  applied
mounts[].{uidMappings,gidMappings}  objects  refused  id-mapped mounts are not supported for WebAssembly containers
mounts[].{uidMappings,gidMappings}[].{containerID,hostID,size}  u32  refused  with what it is in

hooks  object  applied
hooks.{prestart,createRuntime,createContainer,startContainer,poststart,poststop}  objects  applied
hooks.{prestart,createRuntime,createContainer,startContainer,poststart,poststop}[].path  path!  applied
hooks.{prestart,createRuntime,createContainer,startContainer,poststart,poststop}[].{args,env}  strings  applied
hooks.{prestart,createRuntime,createContainer,startContainer,poststart,poststop}[].timeout  positive  applied

linux  object  applied
linux.namespaces  objects  applied
linux.namespaces[].type  string!  applied  user is refused: user namespaces are not supported for WebAssembly containers
linux.namespaces[].path  string  applied
linux.{uidMappings,gidMappings}  objects  refused  user namespaces are not supported for WebAssembly containers
linux.{uidMappings,gidMappings}[].{containerID,hostID,size}  u32  refused  with what it is in
linux.timeOffsets  object  applied
linux.timeOffsets.{boottime,monotonic}  object  applied
linux.timeOffsets.{boottime,monotonic}.secs  i64  applied
linux.timeOffsets.{boottime,monotonic}.nanosecs  u32  applied
linux.devices  objects  applied
linux.devices[].type  string!  applied
linux.devices[].path  string!  applied
linux.devices[].{major,minor}  i64  applied
linux.devices[].{fileMode,uid,gid}  u32  applied
linux.netDevices  map  refused  network devices are not moved into WebAssembly containers
linux.netDevices.*.name  string  refused  with what it is in
linux.cgroupsPath  string  applied
linux.rootfsPropagation  string  applied  never shared with the node
linux.maskedPaths  strings  applied
linux.readonlyPaths  strings  applied
linux.mountLabel  string  applied  refused where the kernel has no SELinux
linux.sysctl  texts  applied
linux.personality  object  applied
linux.personality.domain  string  applied
linux.personality.flags  strings  refused  the specification has no flags yet
linux.memoryPolicy  object  applied
linux.memoryPolicy.{mode,nodes}  string  applied
linux.memoryPolicy.flags  strings  applied
linux.intelRdt  object  refused  caches and memory bandwidth are not divided for WebAssembly containers
linux.intelRdt.{closID,l3CacheSchema,memBwSchema}  string  refused  with what it is in
linux.intelRdt.schemata  strings  refused  with what it is in
linux.intelRdt.enableMonitoring  boolean  refused  with what it is in

linux.seccomp  object  applied
linux.seccomp.defaultAction  string  applied  SCMP_ACT_NOTIFY is refused
linux.seccomp.defaultErrnoRet  u32  applied
linux.seccomp.flags  strings  applied  SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is refused
linux.seccomp.{listenerPath,listenerMetadata}  string  refused  a WebAssembly container's filter has no listener
linux.seccomp.architectures  strings  applied
linux.seccomp.syscalls  objects  applied
linux.seccomp.syscalls[].names  strings!  applied
linux.seccomp.syscalls[].action  string!  applied
linux.seccomp.syscalls[].errnoRet  u32  applied
linux.seccomp.syscalls[].args  objects  applied
linux.seccomp.syscalls[].args[].index  u32!  applied
linux.seccomp.syscalls[].args[].{value,valueTwo}  u64  applied
linux.seccomp.syscalls[].args[].op  string!  applied

linux.resources  object  applied
linux.resources.unified  texts  applied  cgroup version 2
linux.resources.devices  objects  applied  cgroup version 1; with version 2 nodev forbids devices
linux.resources.devices[].allow  boolean  applied
linux.resources.devices[].{type,access}  string  applied
linux.resources.devices[].{major,minor}  i64  applied
linux.resources.pids  object  applied
linux.resources.pids.limit  i64  applied
linux.resources.cpu  object  applied
linux.resources.cpu.{shares,period,burst}  u64  applied
linux.resources.cpu.{quota,idle}  i64  applied
linux.resources.cpu.realtimePeriod  u64  applied  cgroup version 1; version 2 has no such limit
linux.resources.cpu.realtimeRuntime  i64  applied  cgroup version 1; version 2 has no such limit
linux.resources.cpu.{cpus,mems}  string  applied
linux.resources.memory  object  applied
linux.resources.memory.{limit,reservation,swap}  i64  applied
linux.resources.memory.kernel  i64  elsewhere  kernels before 5.16, which had such a limit
linux.resources.memory.kernelTCP  i64  applied  cgroup version 1; version 2 has no such limit
linux.resources.memory.swappiness  u64  applied  cgroup version 1; version 2 has no such setting
linux.resources.memory.disableOOMKiller  boolean  applied  cgroup version 1; version 2 has no such setting
linux.resources.memory.useHierarchy  boolean  elsewhere  kernels before 5.11, where it could be off
linux.resources.memory.checkBeforeUpdate  boolean  applied  cgroup version 2; version 1 refuses such limits by itself
linux.resources.blockIO  object  applied
linux.resources.blockIO.weight  u16  applied
linux.resources.blockIO.leafWeight  u16  applied  cgroup version 1; version 2 has no such weight
linux.resources.blockIO.weightDevice  objects  applied
linux.resources.blockIO.weightDevice[].{major,minor}  i64  applied
linux.resources.blockIO.weightDevice[].weight  u16  applied
linux.resources.blockIO.weightDevice[].leafWeight  u16  applied  cgroup version 1; version 2 has no such weight
linux.resources.blockIO.throttle{Read,Write}{Bps,IOPS}Device  objects  applied
linux.resources.blockIO.throttle{Read,Write}{Bps,IOPS}Device[].{major,minor}  i64  applied
linux.resources.blockIO.throttle{Read,Write}{Bps,IOPS}Device[].rate  u64  applied
linux.resources.hugepageLimits  objects  applied
linux.resources.hugepageLimits[].pageSize  string  applied
linux.resources.hugepageLimits[].limit  u64  applied
linux.resources.network  object  applied  cgroup version 1; version 2 has no such controller
linux.resources.network.classID  u32  applied
linux.resources.network.priorities  objects  applied
linux.resources.network.priorities[].name  string  applied
linux.resources.network.priorities[].priority  u32  applied
linux.resources.rdma  map  applied
linux.resources.rdma.*.{hcaHandles,hcaObjects}  u32  applied

solaris  object  elsewhere  Solaris, with all that is in it
windows  object  elsewhere  Windows, with all that is in it
vm  object  elsewhere  virtual machines, with all that is in it
zos  object  elsewhere  z/OS, with all that is in it
freebsd  object  elsewhere  FreeBSD, with all that is in it
"""


#: There, if the kernel has it.
SELINUX = "/sys/fs/selinux/enforce"


class Verdict(StrEnum):
    APPLIED = "applied"
    REFUSED = "refused"
    ELSEWHERE = "elsewhere"
    """The field is for other systems, or other kinds of containers."""


@dataclass(frozen=True)
class Row:
    name: str
    """The name, with braces, as in the table."""
    kind: str
    needed: bool
    verdict: Verdict
    remark: str

    @property
    def fields(self) -> list[str]:
        """The names of all fields that the row stands for."""
        return list(_expanded(self.name))


def _row(line: str) -> Row:
    name, kind, verdict, *remark = line.split("  ")
    return Row(name, kind.rstrip("!"), kind.endswith("!"), Verdict(verdict), "".join(remark))


def _expanded(name: str) -> Iterator[str]:
    before, brace, rest = name.partition("{")
    if not brace:
        yield name
        return
    inside, _, after = rest.partition("}")
    for choice in inside.split(","):
        yield from _expanded(before + choice + after)


TABLE = [_row(line) for line in _TABLE.splitlines() if line]


# Checking


@dataclass
class _Field:
    accepts: Callable[[Any], bool]
    kind: str
    inner: dict[str, "_Field"] = field(default_factory=dict)
    needs: list[str] = field(default_factory=list)
    """The fields among those that must be there."""


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _list_of(kind: type) -> Callable[[Any], bool]:
    only = {kind}
    return lambda value: type(value) is list and set(map(type, value)) <= only


def _map_of(kind: type) -> Callable[[Any], bool]:
    only = {kind}
    return lambda value: type(value) is dict and set(map(type, value.values())) <= only


_u32 = _whole(0, (1 << 32) - 1)
#: What a kind accepts, and what it is called.
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "string": (lambda value: type(value) is str, "a string"),
    "path": (lambda value: type(value) is str and value[:1] == "/", "an absolute path"),
    "strings": (_list_of(str), "a list of strings"),
    "boolean": (lambda value: type(value) is bool, "true or false"),
    "object": (lambda value: type(value) is dict, "an object"),
    "objects": (_list_of(dict), "a list of objects"),
    "texts": (_map_of(str), "an object of strings"),
    "map": (_map_of(dict), "an object of objects"),
    "u16": (_whole(0, (1 << 16) - 1), "a whole number below 2^16"),
    "u32": (_u32, "a whole number below 2^32"),
    "u32s": (lambda value: type(value) is list and all(map(_u32, value)), "a list of whole numbers below 2^32"),
    "u64": (_whole(0, (1 << 64) - 1), "a whole number below 2^64"),
    "i32": (_whole(-(1 << 31), (1 << 31) - 1), "a whole number of 32 bits"),
    "i64": (_whole(-(1 << 63), (1 << 63) - 1), "a whole number of 64 bits"),
    "positive": (_whole(1, (1 << 31) - 1), "a whole number above zero"),
}
_EACH = "*"


_AN_OBJECT = (_KINDS["object"][0], "object")


def _tree() -> _Field:
    top = _Field(*_AN_OBJECT)
    for row in TABLE:
        for name in row.fields:
            *above, last = name.replace("[]", "").split(".")
            around = top
            for part in above:
                around = around.inner.setdefault(part, _Field(*_AN_OBJECT))
            around.inner[last] = _Field(_KINDS[row.kind][0], row.kind)
            around.needs += [last] * row.needed
    return top


_SPEC = _tree()


class _Wrong(Exception):
    """:param path: from the outermost on"""

    def __init__(self, name: str, sentence: str) -> None:
        self.path, self.sentence = [name], sentence


def check(spec: dict[str, Any], where: str) -> None:
    """Check that all that the specification knows is of its type. What is null is taken out, as if it were not there.

    :raises InvalidArgument: one sentence that names the field
    """
    _checked(spec, _SPEC, f"{where}: ")


def check_process(process: dict[str, Any], where: str) -> None:
    """Check a process that comes without the rest of a configuration, as :func:`check` does."""
    _checked(process, _SPEC.inner["process"], f"{where}: process.")


def _checked(value: dict[str, Any], known: _Field, before: str) -> None:
    try:
        _check(value, known)
    except _Wrong as wrong:
        name = ".".join(reversed(wrong.path)).replace(".[", "[")
        raise InvalidArgument(f"{before}{name} {wrong.sentence}") from None


def _check(value: dict[str, Any], known: _Field) -> None:
    nulls = []
    for name, item in value.items():
        if item is None:
            nulls.append(name)
            continue
        inner = known.inner.get(name)
        if inner is None:
            continue
        if not inner.accepts(item):
            raise _Wrong(name, f"must be {_KINDS[inner.kind][1]}")
        if inner.inner:
            _check_inside(name, item, inner)
    for name in nulls:
        del value[name]
    for name in known.needs:
        if name not in value:
            raise _Wrong(name, "is missing")


def _check_inside(name: str, item: Any, known: _Field) -> None:
    """:raises _Wrong: with the name added"""
    try:
        if known.kind == "objects":
            _check_each(enumerate(item), known)
        elif _EACH in known.inner:
            _check_each(item.items(), known.inner[_EACH])
        else:
            _check(item, known)
    except _Wrong as wrong:
        wrong.path.append(name)
        raise


def _check_each(items: Iterable[tuple[str | int, Any]], known: _Field) -> None:
    for part, one in items:
        try:
            _check(one, known)
        except _Wrong as wrong:
            wrong.path.append(part if isinstance(part, str) else f"[{part}]")
            raise


# Refusing


def _refusals() -> dict[str, str]:
    rows = [row for row in TABLE if row.verdict is Verdict.REFUSED]
    found = {name: row.remark for row in rows for name in row.fields}
    # What is in another that is refused is refused with it.
    inside = {name for name in found for other in found if name.startswith((f"{other}.", f"{other}[]."))}
    return {name: sentence for name, sentence in found.items() if name not in inside}


_REFUSALS = [(name, name.replace("[]", "").split("."), sentence) for name, sentence in _refusals().items()]


def refuse(spec: Spec) -> None:
    """Refuse what a WebAssembly container cannot have, or what makes no sense, as runc does.

    :raises Unimplemented: one sentence that names the field
    :raises InvalidArgument: likewise
    """
    for name, parts, sentence in _REFUSALS:
        if _is_there(spec, parts):
            raise Unimplemented(f"{name}: {sentence}")
    linux = spec.get("linux", {})
    kinds = [one["type"] for one in linux.get("namespaces", [])]
    if "user" in kinds:
        raise Unimplemented("linux.namespaces: user namespaces are not supported for WebAssembly containers")
    if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        raise InvalidArgument(f"linux.namespaces: {twice} is there twice")
    if "uts" not in kinds and (spec.get("hostname") or spec.get("domainname")):
        name = "hostname" if spec.get("hostname") else "domainname"
        raise InvalidArgument(f"{name}: it is the node's, since there is no UTS namespace among linux.namespaces")
    if linux.get("mountLabel") and not os.path.exists(SELINUX):
        raise InvalidArgument("linux.mountLabel: this kernel has no SELinux")


def _is_there(value: Any, parts: list[str]) -> bool:
    for index, part in enumerate(parts):
        value = value.get(part)
        if not value:
            return False
        if type(value) is list and index + 1 < len(parts):
            return any(_is_there(one, parts[index + 1 :]) for one in value)
    return True


def names() -> list[str]:
    """Returns the names of all fields, as ``a.b[].c``; what a map has for each of its keys as ``a.*``."""
    return list(chain.from_iterable(row.fields for row in TABLE))
