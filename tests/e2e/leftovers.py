"""What an app can leave behind on the machine, found by a marker that is unique to the run: a path or a namespace."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from shimd.supervisor.modules.compile_cgroups import prefix

CGROUP = Path("/sys/fs/cgroup")
RUNC = Path("/run/containerd/runc")


def mounts(marker: str) -> list[str]:
    """Mount points below a directory."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [point for point in (line.split()[4] for line in lines) if marker in point]


def cgroups(namespace: str) -> list[Path]:
    """Cgroups of containers: ``ctr`` puts them at ``/<namespace>/<container>`` of each hierarchy."""
    return [
        path for pattern in (f"{namespace}/*", f"*/{namespace}/*") for path in CGROUP.glob(pattern) if path.is_dir()
    ]


def compile_cgroups(runtime: Path) -> list[Path]:
    """Cgroups of compile workers of the daemon with that runtime directory."""
    name = f"{prefix(runtime)}*"
    return [*CGROUP.glob(name), *CGROUP.glob(f"*/{name}")]


def remove_parents(namespace: str) -> None:
    """The empty directories of a namespace, which runc leaves: of its cgroups and of its state."""
    for path in (*CGROUP.glob(namespace), *CGROUP.glob(f"*/{namespace}"), *RUNC.glob(namespace)):
        path.rmdir()


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # gone meanwhile
        return b""


def _processes(name: str, marker: str) -> dict[int, str]:
    found = [pid for pid in _pids() if pid != os.getpid() and marker.encode() in _read(pid, name)]
    lines = {pid: _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip() for pid in found}
    return {pid: line for pid, line in lines.items() if line}  # a zombie has none


def processes_of(directory: Path) -> dict[int, str]:
    """Processes started in an environment that names the directory, by pid, with their command lines."""
    return _processes("environ", str(directory))


def processes_in(namespace: str) -> dict[int, str]:
    """Processes in the cgroups of a containerd namespace."""
    return _processes("cgroup", f"/{namespace}/")


def children_of(pid: int | None) -> list[int]:
    """Those of a process's first thread (proc_pid_task_children(5))."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def end(pids: Iterator[int] | list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def settled(look: Callable[[], object], patience: float = 60) -> object:
    """What ``look`` still sees once it sees nothing, or patience (seconds) is at its end."""
    deadline = time.monotonic() + patience
    while (seen := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return seen
