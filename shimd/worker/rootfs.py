"""The container's root file system: containerd's mounts, in the worker's own mount namespace, and the step into it.

Nothing is mounted on the host, so nothing is left there when the worker dies, however it dies.
"""

import os

from shimd.errors import InvalidArgument
from shimd.linux import libc
from shimd.oci import RootfsMount, Spec
from shimd.worker.mounts import PROPAGATION, Options, Tree

#: mount(2) takes one page of data; an overlay of many layers has more.
_PAGE = os.sysconf("SC_PAGE_SIZE")


def assemble(spec: Spec, bundle: str, mounts: list[RootfsMount]) -> Tree:
    """Mount the root file system; the tree is a mount point of its own, as pivot_root(2) wants it.

    :raises InvalidArgument: one sentence that names the mount
    """
    root = os.path.join(bundle, spec["root"]["path"])
    propagation = PROPAGATION.get(spec.get("linux", {}).get("rootfsPropagation") or "rslave")
    if propagation is None:
        raise InvalidArgument(f"rootfsPropagation {spec['linux']['rootfsPropagation']} is not known")
    # Never shared with the host, whatever is asked for: what is mounted here must not appear there.
    libc.mount(None, "/", None, libc.MS_REC | (libc.MS_PRIVATE if propagation & libc.MS_PRIVATE else libc.MS_SLAVE))
    if mounts:
        os.makedirs(root, 0o711, exist_ok=True)
    for mount in mounts:
        _mount(mount, os.path.join(root, mount.get("target", "").lstrip("/")))
    if not os.path.isdir(root):
        raise InvalidArgument(f"root file system {root} does not exist")
    if not mounts:
        libc.mount(root, root, None, libc.MS_BIND | libc.MS_REC)
    return Tree(root)


def _mount(mount: RootfsMount, target: str) -> None:
    options = Options(mount["options"])
    try:
        if options.bind:
            libc.mount(mount["source"], target, None, libc.MS_BIND | options.flags & libc.MS_REC)
            extra = options.flags & ~(libc.MS_BIND | libc.MS_REC)
            if extra:
                libc.mount(None, target, None, libc.MS_REMOUNT | libc.MS_BIND | extra)
        else:
            with _Shortened(options.data) as data:
                libc.mount(mount["source"], target, mount["type"], options.flags, data or None)
    except OSError as error:
        raise InvalidArgument(f"root file system {mount['type']} {mount['source']}: {error.strerror}") from error


class _Shortened:
    """Overlay's options in one page: the layers named from their common directory, which becomes the working one."""

    def __init__(self, data: str) -> None:
        self._data = data

    def __enter__(self) -> str:
        if len(self._data) < _PAGE:
            return self._data
        options = [option.partition("=") for option in self._data.split(",")]
        lower = next((value.split(":") for name, _, value in options if name == "lowerdir"), [])
        if not lower:
            return self._data
        common = os.path.commonpath(lower)
        os.chdir(common)
        short = ":".join(os.path.relpath(layer, common) for layer in lower)
        return ",".join(
            f"{name}={short}" if name == "lowerdir" else name + equals + value for name, equals, value in options
        )

    def __exit__(self, *_exception: object) -> None:
        os.chdir("/")


def make_readonly(tree: Tree) -> None:
    """root.readonly: the root's own mount, not those within (config.md, "Root")."""
    flags = os.fstatvfs(tree.fd).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
    libc.mount(None, tree.path, None, libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY | flags)


def pivot(tree: Tree) -> None:
    """Make the tree ``/`` and detach the host's (pivot_root(2), "pivot_root(".", ".")")."""
    os.chdir(tree.path)
    libc.pivot_root(".", ".")
    libc.umount(".")
    os.close(tree.fd)
    os.chdir("/")
