"""Sysctls (config-linux.md, "Sysctl"): only those of namespaces that are the container's own."""

from shimd.errors import InvalidArgument, reason
from shimd.oci import Spec

#: Settings of an IPC namespace (ipc_namespaces(7)).
_IPC = frozenset("msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split())


def set_sysctls(spec: Spec) -> None:
    linux = spec.get("linux", {})
    own = {namespace["type"] for namespace in linux.get("namespaces", [])}
    for name, value in linux.get("sysctl", {}).items():
        path = _sysctl_path(name)
        if _sysctl_namespace(path) not in own:
            raise InvalidArgument(f"sysctl {name}: it is the whole node's, not the container's own")
        try:
            with open(f"/proc/sys/{path}", "w") as file:
                file.write(value)
        except OSError as error:
            raise InvalidArgument(f"sysctl {name} = {value}: {reason(error)}") from error


def _sysctl_path(name: str) -> str:
    """Returns the path below /proc/sys: if a slash comes before the first dot, slashes separate (sysctl(8))."""
    dots, slashes = name.partition("/")[0].count("."), name.count("/")
    path = name if slashes and not dots else name.translate(str.maketrans("./", "/."))
    if ".." in path.split("/"):
        raise InvalidArgument(f"sysctl {name} is not the name of one")
    return path


def _sysctl_namespace(path: str) -> str:
    """Returns the kind of namespace that a setting belongs to; empty: to the node."""
    top, _, rest = path.partition("/")
    if top == "net":
        return "network"
    if path.startswith("fs/mqueue/") or (top == "kernel" and rest in _IPC):
        return "ipc"
    return "uts" if path in ("kernel/domainname", "kernel/hostname") else ""
