"""The circumstances in which a process was started, for one that is to take its place: whoever calls ``shimd upgrade``
is in a session of his own, which may end, and have its limits."""

import os
import resource
from contextlib import suppress
from pathlib import Path

from shimd.cgroup import layout

_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


def share(pid: int) -> None:
    """Have this process be where another one is, as far as that is allowed: its cgroups, limits and priority."""
    for procs in _cgroups(pid):
        with suppress(OSError):
            procs.write_text(f"{os.getpid()}\n")
    for limit in set(_LIMITS):
        with suppress(OSError, ValueError):
            resource.setrlimit(limit, resource.prlimit(pid, limit))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(Path(f"/proc/{pid}/oom_score_adj").read_text())
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, pid))


def _cgroups(pid: int) -> list[Path]:
    """``cgroup.procs`` of a process's cgroup in each hierarchy (cgroups(7))."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return []
    where, found = layout.current(), []
    for line in lines:
        number, names, path = line.split(":", 2)
        roots = [one.root for one in where.v1 if one.controllers & set(names.split(","))]
        if number == "0" and where.unified is not None:
            roots = [where.unified]
        found += [Path(f"{root}{path}/cgroup.procs") for root in roots]
    return found
