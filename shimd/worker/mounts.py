"""The mounts of the spec, inside the root file system to be (config.md, "Mounts").

Every destination is looked up as the container would (``open_in_root``), so that no symlink in an image leads a mount
out of its root. Errors name the mount.
"""

import os
from contextlib import suppress

from shimd.errors import InvalidArgument
from shimd.linux import libc
from shimd.oci import Mount, Spec
from shimd.worker.inner import Inner
from shimd.worker.options import PROC, REMOUNTED, Options, bind_flags


class Tree:
    """A root file system to be, held by a descriptor: nothing in it is ever named by a host path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, path: str, flags: int = os.O_PATH) -> int:
        """:raises OSError: as of openat2(2)"""
        return libc.open_in_root(self.fd, path, flags)

    def make(self, path: str, directory: bool) -> int:
        """Open ``path``, made with its parents if it is missing: a directory, or an empty file to mount upon."""
        with suppress(FileNotFoundError):
            return self.open(path)
        parent, _, name = path.rstrip("/").rpartition("/")
        above = self.make(parent or "/", directory=True)
        try:
            if directory:
                os.mkdir(name, 0o755, dir_fd=above)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=above))
        except (
            FileExistsError
        ):  # a dangling symlink: its target is made by way of open_in_root next time, or not at all
            raise InvalidArgument(f"{path} is a symbolic link to nothing") from None
        finally:
            os.close(above)
        return self.open(path)


def mount_all(tree: Tree, spec: Spec, cgroup: list[str], inner: Inner | None = None) -> None:
    """Mount all that the spec lists, in its order; what ``inner`` takes is left to it.

    :raises InvalidArgument: one sentence that names the mount
    """
    for mount in spec.get("mounts", []):
        try:
            _mount_one(tree, mount, cgroup, inner)
        except InvalidArgument as error:
            raise InvalidArgument(f"mount {mount.get('destination')}: {error}") from None
        except OSError as error:
            raise InvalidArgument(f"mount {mount.get('destination')}: {error.strerror}") from error
        except KeyError as error:
            raise InvalidArgument(f"mount {mount.get('destination')}: {error.args[0]} is missing") from None


def _mount_one(tree: Tree, mount: Mount, cgroup: list[str], inner: Inner | None) -> None:
    options = Options(mount.get("options", []))
    fstype = mount.get("type", "")
    if inner is not None and inner.takes(fstype, mount["destination"]):
        if not inner.holds(mount["destination"]):
            os.close(tree.make(mount["destination"], directory=True))
        inner.mount(mount, options)
        return
    if fstype == "cgroup":
        _mount_cgroup(tree, mount, cgroup)
    elif is_bind(mount):
        _bind(tree, mount["source"], mount["destination"], options)
    else:
        if fstype == "proc":
            options.flags |= PROC
        with at(tree, mount["destination"], directory=True) as target:
            libc.mount(mount.get("source", fstype), target, fstype, options.flags, options.data or None)
    _propagate(tree, mount["destination"], options)


def is_bind(mount: Mount) -> bool:
    return mount.get("type") == "bind" or Options(mount.get("options", [])).bind


def _bind(tree: Tree, source: str, destination: str, options: Options) -> None:
    try:
        directory = os.path.isdir(source) if os.stat(source) else False
    except OSError as error:
        raise InvalidArgument(f"source {source}: {error.strerror}") from None
    real = os.path.realpath(source)
    options.flags |= bind_flags(real)
    with at(tree, destination, directory) as target:
        libc.mount(source, target, None, libc.MS_BIND | options.flags & libc.MS_REC)
    if options.flags & REMOUNTED or options.recursive_readonly:
        _restrict(tree, destination, options)
    if real == "/" and options.flags & libc.MS_REC:
        _restrict(tree, f"{destination}/proc", Options(["ro", "nosuid", "nodev", "noexec"]))


def _restrict(tree: Tree, destination: str, options: Options) -> None:
    fd = tree.open(destination)
    try:
        if options.flags & REMOUNTED:
            flags = options.flags & ~libc.MS_REC | _present(fd)
            libc.mount(None, f"/proc/self/fd/{fd}", None, libc.MS_REMOUNT | libc.MS_BIND | flags)
        if options.recursive_readonly:
            libc.mount_setattr_readonly(fd)
    finally:
        os.close(fd)


def _present(fd: int) -> int:
    """Flags of the source's mount, which a remount would otherwise clear (or not be allowed to)."""
    flags = os.fstatvfs(fd).f_flag
    return flags & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)


def _propagate(tree: Tree, destination: str, options: Options) -> None:
    for propagation in options.propagation:
        with at(tree, destination, directory=True) as target:
            libc.mount(None, target, None, propagation)


def _mount_cgroup(tree: Tree, mount: Mount, cgroup: list[str]) -> None:
    """The container's own cgroup, read-only: one directory on v2, one a hierarchy on v1."""
    destination = mount["destination"]
    if len(cgroup) == 1:
        _bind(tree, cgroup[0], destination, Options(["rbind", "ro", "nosuid", "nodev", "noexec"]))
        return
    with at(tree, destination, directory=True) as target:
        libc.mount("tmpfs", target, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC, "mode=755")
    for directory in cgroup:
        hierarchy = directory.removeprefix("/sys/fs/cgroup/").partition("/")[0]
        _bind(tree, directory, f"{destination}/{hierarchy}", Options(["rbind", "ro", "nosuid", "nodev", "noexec"]))
    _restrict(tree, destination, Options(["ro", "nosuid", "nodev", "noexec"]))


class at:
    """A mount point inside the tree as a path that mount(2) takes; made if it is missing."""

    def __init__(self, tree: Tree, destination: str, directory: bool) -> None:
        self._fd = tree.make(destination, directory)

    def __enter__(self) -> str:
        return f"/proc/self/fd/{self._fd}"

    def __exit__(self, *_exception: object) -> None:
        os.close(self._fd)


def hide(tree: Tree, spec: Spec, inner: Inner | None = None) -> None:
    """maskedPaths and readonlyPaths of the spec, as far as they exist (config-linux.md)."""
    linux = spec.get("linux", {})
    for path in linux.get("maskedPaths", []):
        if inner is not None and inner.holds(path):
            inner.mask(tree.fd, path)
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
        target = f"/proc/self/fd/{fd}"
        libc.mount(target, target, None, libc.MS_BIND | libc.MS_REC)
        flags = os.fstatvfs(fd).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
    finally:
        os.close(fd)
    with at(tree, path, directory=True) as target:
        libc.mount(None, target, None, libc.MS_BIND | libc.MS_REMOUNT | libc.MS_RDONLY | flags)
