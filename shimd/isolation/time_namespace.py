"""Time namespaces: containers whose clocks count from another moment (time_namespaces(7)).

Docker gives one to every container. It is for the *children* of who makes it; so the jailer makes it, sets it to its
offsets, which is possible until somebody is in it, and hands it on to be joined.
"""

import os

from shimd.errors import InvalidArgument, Unimplemented, reason
from shimd.linux import libc
from shimd.oci import Spec

_OFFSETS = "/proc/self/timens_offsets"


def time_namespace(spec: Spec) -> int | None:
    """Open the time namespace of a container; ``None``: it asks for none.

    :raises InvalidArgument: it cannot be made as it is asked for, or is none
    :raises Unimplemented: this kernel has none
    """
    linux = spec.get("linux", {})
    offsets = linux.get("timeOffsets", {})
    wanted = [one for one in linux.get("namespaces", []) if one["type"] == "time"]
    if not wanted:
        if offsets:
            raise InvalidArgument("linux.timeOffsets: there is no time namespace among linux.namespaces")
        return None
    if not os.path.exists(_OFFSETS):
        raise Unimplemented("linux.namespaces: this kernel has no time namespaces (they came with Linux 5.6)")
    if not (path := wanted[0].get("path")):
        return _make("".join(f"{clock} {_offset(offsets[clock])}\n" for clock in offsets))
    if offsets:
        raise InvalidArgument("linux.timeOffsets: a time namespace that is joined has its offsets already")
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgument(f"time namespace {path} cannot be joined: {reason(error)}") from error


def _offset(offset: dict[str, int]) -> str:
    return f"{offset.get('secs', 0)} {offset.get('nanosecs', 0)}"


def _make(offsets: str) -> int:
    libc.unshare(libc.CLONE_NEWTIME)
    try:
        if offsets:
            with open(_OFFSETS, "w") as file:
                file.write(offsets)
    except OSError as error:
        raise InvalidArgument(f"linux.timeOffsets: {reason(error)}") from error
    return os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
