"""What the kernel has of a containerd, its shimd and their containers: processes, descriptors, mounts, cgroups."""

import os
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import leftovers

#: What a process of shimd's is, by its command line.
_ROLES: list[tuple[str, Callable[[str], bool]]] = [
    ("daemon", lambda line: line.endswith("shimd serve")),
    ("keeper", lambda line: "shimd-keeper" in line.split()[0]),
    ("fork server", lambda line: " -m shimd.forkserver" in line),
    ("zygote", lambda line: line.startswith("shimd-zygote")),
    ("jailer", lambda line: " -m shimd.jailer" in line),
    ("log program", lambda line: line.split()[1:2] == ["log"]),
    ("launcher", lambda line: "containerd-shim-" in line.split()[0]),
    ("containerd", lambda line: line.split()[0].endswith(("containerd", "ctr"))),
]
#: What a launcher makes of the log, when it starts a daemon.
_OLD_LOG = "shimd.log.1"


@dataclass(frozen=True)
class Found:
    """A process; one that is about to be gone has no descriptors."""

    pid: int
    role: str
    """As above; ``worker`` for those in a container's cgroup or a compilation's; else the command line."""
    line: str
    descriptors: Counter[str]


@dataclass(frozen=True)
class Node:
    processes: list[Found]
    mounts: list[str]
    cgroups: list[str]
    files: set[str]
    """In the runtime directory, sockets among them."""

    def of(self, role: str) -> list[Found]:
        return sorted((found for found in self.processes if found.role == role), key=lambda found: found.pid)


def look(directory: Path, namespace: str) -> Node:
    lines, files = (
        leftovers.processes_of(directory) | leftovers.processes_in(namespace),
        (directory / "shimd").rglob("*"),
    )
    return Node(
        [found(pid, line) for pid, line in lines.items()],
        leftovers.mounts(str(directory)),
        sorted(str(path) for path in leftovers.cgroups(namespace) + leftovers.compile_cgroups(directory / "shimd")),
        {_plain(str(path.relative_to(directory))) for path in files if path.name != _OLD_LOG},
    )


def found(pid: int, line: str) -> Found:
    return Found(pid, role(pid, line), line, _descriptors(pid))


def role(pid: int, line: str) -> str:
    named = next((name for name, is_it in _ROLES if is_it(line)), line)
    if named in ("fork server", "zygote") and _elsewhere(pid):
        return "worker"
    return named


def _elsewhere(pid: int) -> bool:
    """In another cgroup of version 2 than we are: a worker is born in its container's, a compile worker in its own."""
    try:
        return _unified(pid) != _unified(os.getpid())
    except (OSError, StopIteration):
        return True


def _unified(pid: int) -> str:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line for line in lines if line.startswith("0::"))


def _descriptors(pid: int) -> Counter[str]:
    kinds: Counter[str] = Counter()
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                kinds[_kind(os.readlink(entry.path))] += 1
    return kinds


def _kind(target: str) -> str:
    """``socket``, ``pipe``, ``anon_inode:[pidfd]``, or a path without what is of one container alone."""
    if target.startswith(("socket:", "pipe:")):
        return target.partition(":")[0]
    return _plain(target.removesuffix(" (deleted)"))


def _plain(path: str) -> str:
    return re.sub(r"[0-9a-f]{8,}|\d+", "N", path)


def left(before: Node, after: Node, processors: int) -> list[str]:
    """Sentences on what there is after all containers are gone that was not there before the first."""
    return [
        *_more_processes(before, after, processors),
        *_more_descriptors(before, after),
        *(f"the mount {point}" for point in after.mounts if point not in before.mounts),
        *(f"the cgroup {path}" for path in after.cgroups if path not in before.cgroups),
        *(f"the file {path} in the runtime directory" for path in sorted(after.files - before.files)),
    ]


def _more_processes(before: Node, after: Node, processors: int) -> list[str]:
    #: As many jailers as there are processors is what there may be at rest.
    least = {"jailer": processors}
    sentences = []
    for each in sorted({found.role for found in after.processes}):
        had, has = before.of(each), after.of(each)
        if len(has) > max(len(had), least.get(each, 0)):
            lines = ", ".join(f"{it.pid} ({it.line[:80]})" for it in has)
            sentences.append(f"{len(has)} processes that are a {each} where {len(had)} were: {lines}")
    if not after.of("daemon"):
        sentences.append("no daemon")
    return sentences


def _more_descriptors(before: Node, after: Node) -> list[str]:
    """In each of our processes; of those of a kind the one that has the most. A jailer more is two sockets of the
    daemon's, and a pidfd."""
    sentences = []
    for each in ("daemon", "keeper", "fork server", "zygote", "jailer"):
        had, has = (_most(node.of(each)) for node in (before, after))
        jailers = max(0, len(after.of("jailer")) - len(before.of("jailer"))) if each == "daemon" else 0
        for kind, count in sorted(has.items()):
            if before.of(each) and count > had[kind] + (2 * jailers if kind in ("socket", "anon_inode:[pidfd]") else 0):
                pids = [it.pid for it in after.of(each) if it.descriptors[kind] == count]
                sentences.append(f"{count} descriptors of {kind} in {each} {pids} where {had[kind]} were")
    return sentences


def _most(processes: list[Found]) -> Counter[str]:
    most: Counter[str] = Counter()
    for process in processes:
        most |= process.descriptors
    return most


def lives(pid: int, namespace: str, container: str) -> bool:
    """Whether a container has that process, and it is no zombie."""
    try:
        cgroup = Path(f"/proc/{pid}/cgroup").read_text()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX" and f"/{namespace}/{container}" in cgroup
