"""Mounts that only the container's own process can make: /proc shows the pid namespace of who mounts it, a version 2
cgroup hierarchy the cgroup namespace.

The jailer is in neither of the container's. So these become calls, with all that is mounted upon or over them:
masks, and what a volume puts there, of which the source is not in sight any more and is taken along as a detached copy.
"""

import os
import stat

from shimd.errors import InvalidArgument, in_go
from shimd.linux import libc
from shimd.oci import Mount
from shimd.oci.mount_options import PROC, MountOptions, bind_flags, normal, within
from shimd.protocol.constants import Policy
from shimd.protocol.system_calls import SystemCalls

_AT_FDCWD = (1 << 64) - 100
_MOVE_MOUNT_F_EMPTY_PATH = 4
_TYPES = ("proc", "cgroup2")
#: The null device: <linux/major.h>, mem(4).
_NULL = os.makedev(1, 3)


class LateMounts:
    """Adds the mounts to ``calls``; ``fds`` are to be the worker's descriptors from ``first_fd`` on."""

    def __init__(self, calls: SystemCalls, first_fd: int) -> None:
        self._steps = calls
        self._first = first_fd
        self._points: dict[str, str] = {}
        """The types of the mounts that are left to the process, by their mount points."""
        self.fds: list[int] = []

    def takes(self, fstype: str, destination: str) -> bool:
        """Returns whether a mount is left to the process: of such a type, or in or over one that is, so that it comes
        after."""
        path = normal(destination)
        return fstype in _TYPES or self.holds(path) or any(within(point, path) for point in self._points)

    def holds(self, path: str) -> bool:
        """Returns whether a path lies in a mount that is left to the process."""
        return any(within(normal(path), point) for point in self._points)

    def mount(self, mount: Mount, options: MountOptions) -> None:
        """Add the calls of a mount.

        :raises InvalidArgument: it cannot be made by the process itself
        :raises OSError: the source of a bind mount cannot be copied
        """
        destination, fstype = mount["destination"], mount.get("type", "")
        says = f"mount {destination}"
        if options.bind or fstype == "bind":
            self._bind(mount["source"], destination, options, says)
        elif fstype == "cgroup":
            raise InvalidArgument(f"{destination} hides what was mounted before")
        else:
            flags = options.flags | (PROC if fstype == "proc" else 0)
            self._mount(mount.get("source", fstype), destination, fstype, flags, options.data, says)
        if fstype in _TYPES:
            self._points[normal(destination)] = fstype
        for propagation in options.propagation:
            self._mount("none", destination, "", propagation, "", says)

    def _bind(self, source: str, destination: str, options: MountOptions, says: str) -> None:
        if not os.path.exists(source):
            raise InvalidArgument(f"source {source}: {in_go(os.strerror(2))}")
        real, recursive = os.path.realpath(source), bool(options.flags & libc.MS_REC)
        if real == "/" and recursive:
            raise InvalidArgument("the node's root, with all that is mounted in it, has no place in /proc")
        fd = libc.clone_tree(source, recursive, options.flags | bind_flags(real))
        number = self._first + len(self.fds)
        self.fds.append(fd)
        if options.is_recursive:
            libc.mount_setattr_recursive(fd, options.recursive, options.recursive_clear)
        target = os.fsencode(destination)
        self._steps.add("move_mount", number, b"", _AT_FDCWD, target, _MOVE_MOUNT_F_EMPTY_PATH, says=says)

    def mask(self, root: int, path: str) -> None:
        """Mask a path in /proc as :func:`shimd.isolation.mounts.hide` does, if this kernel has it.

        :param root: the root file system, of which /dev/null is the mask of files
        :raises InvalidArgument: its /dev/null is something else
        """
        point = max((point for point in self._points if within(normal(path), point)), key=len)
        if self._points[point] != "proc":
            return
        node = "/proc" + normal(path)[len(point) :]
        says = f"masked path {path}"
        if os.path.isdir(node):
            self._mount("tmpfs", path, "tmpfs", libc.MS_RDONLY, "size=0k", says, Policy.IF_THERE)
        elif os.path.exists(node):
            if not _is_null(root):
                raise InvalidArgument(f"{says}: the container's /dev/null is not the null device")
            self._mount("/dev/null", path, "", libc.MS_BIND, "", says, Policy.IF_THERE)

    def _mount(
        self, source: str, target: str, fstype: str, flags: int, data: str, says: str, policy: Policy = Policy.FAIL
    ) -> None:
        arguments = (os.fsencode(source), os.fsencode(target), fstype.encode(), flags, data.encode() if data else 0)
        self._steps.add("mount", *arguments, says=says, policy=policy)


def _is_null(root: int) -> bool:
    try:
        fd = libc.open_in_root(root, "/dev/null", os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        found = os.fstat(fd)
        return stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL
    finally:
        os.close(fd)
