"""A container's facts as plans (:mod:`shimd.protocol.plans`)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from shimd import oci
from shimd.cgroup import Cgroup
from shimd.engine import Preopen
from shimd.isolation.seccomp import worker_filter
from shimd.oci import listen
from shimd.oci.listen import Address
from shimd.oci.mount_options import MountOptions, normal
from shimd.protocol.plans import ContainerApp, JoinJail, NewJail, Pause
from shimd.supervisor.workers.fork_client import Birthplace
from shimd.supervisor.workers.jailers import Jail

#: The kubelet's containers and sandboxes, as containerd marks them (containerd: internal/cri/annotations).
CONTAINER_TYPE = "io.kubernetes.cri.container-type"


@dataclass(frozen=True)
class ProcessPlan:
    """One process of a container: where it is born, and what for."""

    id: str
    """The container's id (and ``/exec id``), for messages."""
    birthplace: Birthplace
    place: NewJail | JoinJail | Pause
    preopens: Sequence[Preopen] = ()

    @property
    def emulates_signals(self) -> bool:
        """Whether it is process 1 of a pid namespace, and runs a guest (:mod:`shimd.supervisor.task.signals`)."""
        return isinstance(self.place, NewJail) and self.birthplace.pidns == "new"

    @property
    def listen(self) -> Sequence[Address]:
        """Sockets that the app is to be given."""
        return self.place.listen if isinstance(self.place, NewJail) else ()


def is_sandbox(spec: oci.Spec) -> bool:
    """Returns whether a container is there to hold a pod's namespaces, and runs nothing."""
    return (spec.get("annotations") or {}).get(CONTAINER_TYPE) == "sandbox"


def pid_namespace(spec: oci.Spec) -> str | None:
    """Returns ``new``, the path of one to join, or ``None`` for the host's."""
    for namespace in spec.get("linux", {}).get("namespaces", []):
        if namespace["type"] == "pid":
            return namespace.get("path") or "new"
    return None


def init(
    id: str, bundle: Path, spec: oci.Spec, rootfs: list[oci.RootfsMount], cgroup: Cgroup, *, terminal: bool
) -> ProcessPlan:
    """The plan of a container's first process."""
    birthplace = Birthplace(pid_namespace(spec), cgroup.unified)
    directories = list(cgroup.directories)
    if is_sandbox(spec):
        return ProcessPlan(
            id, birthplace, Pause(str(bundle), spec, directories, cgroup.unified, terminal, pause_program())
        )
    jail = NewJail(
        bundle=str(bundle),
        spec=spec,
        rootfs=rootfs,
        directories=directories,
        unified=cgroup.unified,
        terminal=terminal,
        listen=listen.wanted(spec),
        seccomp=worker_filter(spec),
    )
    return ProcessPlan(id, birthplace, jail, _preopens(spec))


def exec(
    id: str, spec: oci.Spec, process: oci.Process, cgroup: Cgroup, init_pid: int, *, terminal: bool, seccomp: str
) -> ProcessPlan:
    """The plan of a further process, in the namespaces of the first."""
    pidns = f"/proc/{init_pid}/ns/pid" if pid_namespace(spec) else None
    jail = JoinJail(
        spec=spec,
        process=process,
        init_pid=init_pid,
        directories=list(cgroup.directories),
        unified=cgroup.unified,
        terminal=terminal,
        seccomp=seccomp,
    )
    return ProcessPlan(id, Birthplace(pidns, cgroup.unified), jail, _preopens(spec))


def shows_cgroup(spec: oci.Spec) -> bool:
    """Returns whether its jail has its cgroup in it, which has to be there then."""
    return any(mount.get("type") == "cgroup" for mount in spec.get("mounts", []))


def _preopens(spec: oci.Spec) -> list[Preopen]:
    """The root file system, and each bind mount by itself for engines that cannot just follow the kernel's.

    What is read-only is so by the kernel's mounts, of which each has its own say: a volume in a read-only root may be
    written to. So the root is never given read-only, whatever the spec says of it.
    """
    binds = [
        (normal(mount["destination"]), options.readonly)
        for mount in spec.get("mounts", [])
        if (options := MountOptions(mount.get("options", []))).bind or mount.get("type") == "bind"
    ]
    return [Preopen("/", "/"), *(Preopen(destination, destination, readonly) for destination, readonly in binds)]


def app(plan: ProcessPlan, jail: Jail) -> ContainerApp:
    """The plan that the worker gets, once its jail is made."""
    assert not isinstance(plan.place, Pause)
    process = plan.place.process
    return ContainerApp(
        id=plan.id,
        process=oci.Process(args=process["args"], env=process.get("env", []), cwd=process["cwd"]),
        preopens=plan.preopens,
        first=isinstance(plan.place, NewJail),
        listen=plan.listen,
        listening=jail.listening,
    )


@cache
def pause_program() -> str:
    """``shimd-pause`` beside the program that runs; empty if none was installed (no C compiler)."""
    path = Path(sys.argv[0]).resolve().with_name("shimd-pause")
    return str(path) if path.is_file() else ""
