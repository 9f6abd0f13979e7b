"""``linux.cgroupsPath`` of the runtime spec, as a path below each hierarchy's mount point."""

from shimd.errors import InvalidArgument


def relative(path: str, systemd: bool) -> str:
    """Convert: ``/default/id`` → ``default/id``, ``kubepods-burstable.slice:cri-containerd:id`` → ``kubepods.slice/…``.

    The second form is systemd's, ``slice:prefix:name``. It is understood if ``systemd`` (the runtime option
    SystemdCgroup) is set, and wherever it starts with a slice: containerd's CRI writes it whenever the kubelet's
    cgroup driver is systemd. Only with the option is systemd asked to make the scope (``shimd/cgroup/systemd``).

    :raises InvalidArgument: the path leaves the hierarchy, is empty, or not of systemd's form though it should be
    """
    if systemd or is_systemd(path):
        path = _expand(path)
    names = [name for name in path.split("/") if name not in ("", ".")]
    if not names or ".." in names or "\0" in path:
        raise InvalidArgument(f"linux.cgroupsPath {path!r} names no cgroup of its own")
    return "/".join(names)


def is_systemd(path: str) -> bool:
    """Returns whether a ``linux.cgroupsPath`` names a unit of systemd's."""
    parts = path.split(":")
    return len(parts) == 3 and parts[0].endswith(".slice") and "/" not in path


def _expand(path: str) -> str:
    parts = path.split(":")
    if len(parts) != 3 or not parts[2] or "/" in path:
        raise InvalidArgument(
            f"linux.cgroupsPath {path!r} is not of the form slice:prefix:name, as SystemdCgroup needs"
        )
    slice, prefix, name = parts
    return _nested(slice or "system.slice") + "/" + _unit(prefix, name)


def _nested(slice: str) -> str:
    """Returns a slice's path (systemd.slice(5)): ``a-b.slice`` lies in ``a.slice``; ``-.slice`` is the root."""
    stem = slice.removesuffix(".slice")
    if stem == "-":
        return ""
    names = stem.split("-")
    if not slice.endswith(".slice") or not all(names):
        raise InvalidArgument(f"{slice!r} in linux.cgroupsPath is not the name of a slice")
    return "/".join("-".join(names[: depth + 1]) + ".slice" for depth in range(len(names)))


def _unit(prefix: str, name: str) -> str:
    if name.endswith(".slice"):
        return name
    return (f"{prefix}-{name}" if prefix else name) + ".scope"
