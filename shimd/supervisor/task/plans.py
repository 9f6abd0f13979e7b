"""What a worker of a container is told to do (``shimd/protocol/messages.py``): a container's facts as a plan."""

import sys
from functools import cache
from pathlib import Path

from shimd import oci
from shimd.cgroup import Cgroup
from shimd.isolation.seccomp import worker_filter
from shimd.oci import listen
from shimd.oci.mount_options import Options, normal
from shimd.protocol.messages import Plan
from shimd.supervisor.workers.jailers import Jail

#: The kubelet's containers and sandboxes, as containerd marks them (containerd: internal/cri/annotations).
CONTAINER_TYPE = "io.kubernetes.cri.container-type"


def is_sandbox(spec: oci.Spec) -> bool:
    """Whether a container is there to hold a pod's namespaces, and runs nothing."""
    return (spec.get("annotations") or {}).get(CONTAINER_TYPE) == "sandbox"


def pid_namespace(spec: oci.Spec) -> str | None:
    """``new``, the path of one to join, or ``None`` for the host's."""
    for namespace in spec.get("linux", {}).get("namespaces", []):
        if namespace["type"] == "pid":
            return namespace.get("path") or "new"
    return None


def init(
    id: str, bundle: Path, spec: oci.Spec, rootfs: list[oci.RootfsMount], cgroup: Cgroup, *, terminal: bool
) -> Plan:
    """For a container's first process."""
    plan = Plan(
        kind="init",
        id=id,
        bundle=str(bundle),
        spec=spec,
        process=spec["process"],
        rootfs=rootfs,
        cgroup=list(cgroup.directories),
        unified=cgroup.unified,
        terminal=terminal,
        pidns=pid_namespace(spec),
        preopens=_preopens(spec),
    )
    if is_sandbox(spec):
        return plan | Plan(kind="sandbox", rootfs=[], pause=pause_program())
    return plan | Plan(seccomp=worker_filter(spec), listen=listen.wanted(spec))


def exec(
    id: str, bundle: Path, spec: oci.Spec, process: oci.Process, cgroup: Cgroup, init_pid: int, *, terminal: bool
) -> Plan:
    """For a further process in the namespaces of the first."""
    return Plan(
        kind="exec",
        id=id,
        bundle=str(bundle),
        spec=spec,
        process=process,
        cgroup=list(cgroup.directories),
        unified=cgroup.unified,
        init_pid=init_pid,
        terminal=terminal,
        preopens=_preopens(spec),
        pidns=f"/proc/{init_pid}/ns/pid" if pid_namespace(spec) else None,
        seccomp=worker_filter(spec),
    )


def shows_cgroup(spec: oci.Spec) -> bool:
    """Whether its jail has its cgroup in it, which has to be there then."""
    return any(mount.get("type") == "cgroup" for mount in spec.get("mounts", []))


def _preopens(spec: oci.Spec) -> list[tuple[str, str, bool]]:
    """The root file system, and each bind mount by itself for engines that cannot just follow the kernel's.

    What is read-only is so by the kernel's mounts, of which each has its own say: a volume in a read-only root may be
    written to. So the root is never given read-only, whatever the spec says of it.
    """
    binds = [
        (normal(mount["destination"]), options.readonly)
        for mount in spec.get("mounts", [])
        if (options := Options(mount.get("options", []))).bind or mount.get("type") == "bind"
    ]
    return [("/", "/", False), *((destination, destination, readonly) for destination, readonly in binds)]


def of_worker(plan: Plan, jail: Jail) -> Plan:
    """What is left of a plan for the worker once its jail is made."""
    process = plan["process"]
    return Plan(
        kind=plan["kind"],
        id=plan["id"],
        process=oci.Process(args=process["args"], env=process.get("env", []), cwd=process["cwd"]),
        preopens=plan["preopens"],
        listen=plan.get("listen", []),
        listening=jail.listening,
        pidns=plan["pidns"],
        unified=plan["unified"],
    )


@cache
def pause_program() -> str:
    """``shimd-pause`` beside the program that runs; empty if none was installed (no C compiler)."""
    path = Path(sys.argv[0]).resolve().with_name("shimd-pause")
    return str(path) if path.is_file() else ""
