"""The container's root file system: containerd's mounts, in the worker's own mount namespace, and the step into it.

Nothing is mounted on the host, so nothing is left there when the worker dies, however it dies. And nothing in it is a
device: an image may hold device files, and with cgroup version 2 no other rule of ours stands between them and a guest
that runs as root. /dev is a mount of its own (:mod:`shimd.isolation.devices`).
"""

import os
from collections.abc import Sequence
from contextlib import suppress

from shimd.errors import InvalidArgument, reason
from shimd.isolation.tree import MountPoint, Tree
from shimd.linux import libc
from shimd.oci import RootfsMount, Spec
from shimd.oci.mount_options import PROPAGATION, MountOptions

#: mount(2) takes one page of data; an overlay of many layers has more.
_PAGE = os.sysconf("SC_PAGE_SIZE")


def assemble(spec: Spec, bundle: str, mounts: Sequence[RootfsMount]) -> Tree:
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
        _make_mount_point(root)
    for mount in mounts:
        _mount_at(mount, root)
    if not os.path.isdir(root):
        raise InvalidArgument(f"root file system {root} does not exist")
    if not mounts:
        libc.mount(root, root, None, libc.MS_BIND | libc.MS_REC)
        _remount(root, libc.MS_NODEV)
    return Tree(root)


def mount_for_others(root: str, mounts: Sequence[RootfsMount]) -> None:
    """Mount it in the host's namespace, for a native container: its device files are for ``runc``'s cgroup to forbid.

    :raises InvalidArgument: one sentence that names the mount
    """
    _make_mount_point(root)
    for mount in mounts:
        _mount_at(mount, root, 0)


def _make_mount_point(root: str) -> None:
    """Make the directory, but not the bundle, if containerd has removed it meanwhile: nobody would remove it again."""
    with suppress(FileExistsError):
        os.mkdir(root, 0o711)


def _mount_at(mount: RootfsMount, root: str, flags: int = libc.MS_NODEV) -> None:
    """Mount at the root, or at ``target`` in what was mounted before, which may have links that lead out of it."""
    if not mount.get("target", "").strip("/"):
        _mount(mount, root, flags)
        return
    tree = Tree(root)
    try:
        with MountPoint(tree, mount["target"], directory=True) as target:
            _mount(mount, target.path, flags)
    finally:
        os.close(tree.fd)


def _remount(target: str, flags: int) -> None:
    """Add to a bind mount's flags."""
    present = os.statvfs(target).f_flag & (os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
    libc.mount(None, target, None, libc.MS_REMOUNT | libc.MS_BIND | present | flags)


def _mount(mount: RootfsMount, target: str, flags: int) -> None:
    options = MountOptions(mount["options"])
    options.flags |= flags
    try:
        if options.bind:
            libc.mount(mount["source"], target, None, libc.MS_BIND | options.flags & libc.MS_REC)
            _remount(target, options.flags & ~(libc.MS_BIND | libc.MS_REC))
        else:
            with _Shortened(options.data) as data:
                libc.mount(mount["source"], target, mount["type"], options.flags, data or None)
    except OSError as error:
        raise InvalidArgument(f"root file system {mount['type']} {mount['source']}: {reason(error)}") from error


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
    """Make the root's own mount read-only, not those within (``root.readonly``; config.md, "Root")."""
    flags = os.fstatvfs(tree.fd).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
    libc.mount(None, tree.path, None, libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY | flags)


def pivot(tree: Tree) -> None:
    """Make the tree ``/`` and detach the host's (pivot_root(2), "pivot_root(".", ".")")."""
    os.chdir(tree.path)
    libc.pivot_root(".", ".")
    libc.umount(".")
    os.close(tree.fd)
    os.chdir("/")
