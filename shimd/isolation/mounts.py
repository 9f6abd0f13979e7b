"""The mounts of the spec, inside the root file system to be (config.md, "Mounts").

Every destination is looked up as the container would (:mod:`shimd.isolation.tree`). Errors name the mount.
"""

import errno
import os
from collections.abc import Sequence

from shimd.errors import InvalidArgument, reason
from shimd.isolation.copy_up import copy_up
from shimd.isolation.late_mounts import LateMounts
from shimd.isolation.tree import MountPoint, Tree
from shimd.linux import libc
from shimd.oci import Mount, Spec
from shimd.oci.mount_options import PROC, REMOUNTED, MountOptions, bind_flags, normal

#: File systems that are what their place says: it is an ordinary directory, or there is no telling what is masked.
_PLAIN = ("proc", "sysfs", "cgroup2")
#: File systems that take no context, or whose files have one each.
_UNLABELLED = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2")


def mount_all(tree: Tree, spec: Spec, cgroup: Sequence[str], late: LateMounts | None = None) -> None:
    """Mount all that the spec lists, in its order; what ``late`` takes is left to it.

    :raises InvalidArgument: one sentence that names the mount
    """
    for mount in spec.get("mounts", []):
        try:
            _mount_one(tree, mount, cgroup, late, spec.get("linux", {}).get("mountLabel", ""))
        except InvalidArgument as error:
            raise InvalidArgument(f"mount {mount.get('destination')}: {error}") from None
        except OSError as error:
            raise InvalidArgument(f"mount {mount.get('destination')}: {reason(error)}") from error
        except KeyError as error:
            raise InvalidArgument(f"mount {mount.get('destination')}: {error.args[0]} is missing") from None


def _mount_one(tree: Tree, mount: Mount, cgroup: Sequence[str], late: LateMounts | None, label: str) -> None:
    options = MountOptions(mount.get("options", []))
    fstype = mount.get("type", "")
    if late is not None and late.takes(fstype, mount["destination"]):
        if not late.holds(mount["destination"]):
            _plain(tree, mount["destination"])
        late.mount(mount, options)
        if fstype in _PLAIN:
            tree.guarded.add(normal(mount["destination"]))
        return
    if fstype in _PLAIN and not is_bind(mount):
        _plain(tree, mount["destination"])
    if fstype == "cgroup":
        place = _mount_cgroup(tree, mount, cgroup)
    elif is_bind(mount):
        place = _bind(tree, mount["source"], mount["destination"], options)
    elif options.copy_up and fstype == "tmpfs":
        place = _mount_copy(tree, mount, options, labelled(options.data, fstype, label))
    else:
        if fstype == "proc":
            options.flags |= PROC
        data = labelled(options.data, fstype, label)
        with MountPoint(tree, mount["destination"], directory=True) as target:
            libc.mount(mount.get("source", fstype), target.path, fstype, options.flags, data or None)
        place = target.place
    _propagate(tree, place, options)


def _plain(tree: Tree, destination: str) -> None:
    """Make a directory that no link is on the way to.

    :raises InvalidArgument: there is one
    """
    os.close(tree.make(destination, directory=True))
    try:
        os.close(libc.open_without_links(tree.fd, destination, os.O_PATH | os.O_DIRECTORY))
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise InvalidArgument("it is no ordinary directory in the image, or a link is on the way to it") from None


def _mount_copy(tree: Tree, mount: Mount, options: MountOptions, data: str) -> str:
    """Mount a tmpfs with a copy of what the image has there; make it read-only after that, if it shall be."""
    with MountPoint(tree, mount["destination"], directory=True) as target:
        source = os.open(target.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        libc.mount("tmpfs", target.path, "tmpfs", options.flags & ~libc.MS_RDONLY, data or None)
    try:
        mounted = libc.open_without_links(tree.fd, target.place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            copy_up(source, mounted)
        finally:
            os.close(mounted)
    finally:
        os.close(source)
    if options.flags & libc.MS_RDONLY:
        _restrict(tree, target.place, options)
    return target.place


def labelled(data: str, fstype: str, label: str) -> str:
    """Add SELinux's context for its files to a file system's options, as runc does (mount(8), ``context=``).

    :param label: empty for none: other nodes refuse one (:mod:`shimd.oci.fields`)
    """
    if not label or fstype in _UNLABELLED:
        return data
    return ",".join(filter(None, (data, f'context="{label}"')))


def is_bind(mount: Mount) -> bool:
    return mount.get("type") == "bind" or MountOptions(mount.get("options", [])).bind


def _bind(tree: Tree, source: str, destination: str, options: MountOptions) -> str:
    try:
        directory = os.path.isdir(source) if os.stat(source) else False
    except OSError as error:
        raise InvalidArgument(f"source {source}: {reason(error)}") from None
    real = os.path.realpath(source)
    options.flags |= bind_flags(real)
    with MountPoint(tree, destination, directory) as target:
        libc.mount(source, target.path, None, libc.MS_BIND | options.flags & libc.MS_REC)
    if options.flags & REMOUNTED or options.is_recursive:
        _restrict(tree, target.place, options)
    if real == "/" and options.flags & libc.MS_REC:
        _restrict(tree, f"{target.place}/proc", MountOptions(["ro", "nosuid", "nodev", "noexec"]))
    return target.place


def _restrict(tree: Tree, place: str, options: MountOptions) -> None:
    fd = tree.reopen(place)
    try:
        if options.flags & REMOUNTED:
            flags = options.flags & ~libc.MS_REC | _present(fd)
            libc.mount(None, f"/proc/self/fd/{fd}", None, libc.MS_REMOUNT | libc.MS_BIND | flags)
        if options.is_recursive:
            libc.mount_setattr_recursive(fd, options.recursive, options.recursive_clear)
    finally:
        os.close(fd)


def _present(fd: int) -> int:
    """Returns the flags of the source's mount, which a remount would otherwise clear (or not be allowed to). What is
    read-only on the node stays so, as with runc, whether or not ``rw`` is asked for."""
    flags = os.fstatvfs(fd).f_flag
    return flags & (os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)


def _propagate(tree: Tree, place: str, options: MountOptions) -> None:
    for propagation in options.propagation:
        fd = tree.reopen(place)
        try:
            libc.mount(None, f"/proc/self/fd/{fd}", None, propagation)
        finally:
            os.close(fd)


def _mount_cgroup(tree: Tree, mount: Mount, cgroup: Sequence[str]) -> str:
    """Mount the container's own cgroup, read-only: one directory on v2, one a hierarchy on v1."""
    destination = mount["destination"]
    if len(cgroup) == 1:
        return _bind(tree, cgroup[0], destination, MountOptions(["rbind", "ro", "nosuid", "nodev", "noexec"]))
    with MountPoint(tree, destination, directory=True) as target:
        libc.mount("tmpfs", target.path, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC, "mode=755")
    for directory in cgroup:
        hierarchy = directory.removeprefix("/sys/fs/cgroup/").partition("/")[0]
        _bind(
            tree, directory, f"{target.place}/{hierarchy}", MountOptions(["rbind", "ro", "nosuid", "nodev", "noexec"])
        )
    _restrict(tree, target.place, MountOptions(["ro", "nosuid", "nodev", "noexec"]))
    return target.place


def hide(tree: Tree, spec: Spec, late: LateMounts | None = None) -> None:
    """Hide maskedPaths and restrict readonlyPaths of the spec, as far as they exist (config-linux.md)."""
    linux = spec.get("linux", {})
    for path in linux.get("maskedPaths", []):
        if late is not None and late.holds(path):
            late.mask(tree.fd, path)
        else:
            _mask(tree, path)
    for path in linux.get("readonlyPaths", []):
        if not path.startswith("/proc/"):  # read-only as a whole
            _make_readonly(tree, path)


def _mask(tree: Tree, path: str) -> None:
    try:
        fd = tree.open(path)
    except OSError:
        return
    try:
        target = f"/proc/self/fd/{fd}"
        if os.path.isdir(target):
            libc.mount("tmpfs", target, "tmpfs", libc.MS_RDONLY, "size=0k")
        else:
            libc.mount("/dev/null", target, None, libc.MS_BIND)
    finally:
        os.close(fd)


def _make_readonly(tree: Tree, path: str) -> None:
    try:
        fd = tree.open(path)
    except OSError:
        return
    try:
        target, place = f"/proc/self/fd/{fd}", tree.place(fd)
        libc.mount(target, target, None, libc.MS_BIND | libc.MS_REC)
    finally:
        os.close(fd)
    _restrict(tree, place, MountOptions(["ro"]))
