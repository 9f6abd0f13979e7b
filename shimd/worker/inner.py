"""Mounts that only the container's own process can make: /proc shows the pid namespace of who mounts it.

The sandboxer is in no container's pid namespace. So these become steps, with all that is mounted upon them: masks, and
what a volume puts there, of which the source is not in sight any more and is taken along as a detached copy.
"""

import os

from shimd.errors import InvalidArgument
from shimd.linux import libc
from shimd.oci import Mount
from shimd.worker.options import PROC, Options, within
from shimd.worker.steps import Policy, Steps

_AT_FDCWD = (1 << 64) - 100
_MOVE_MOUNT_F_EMPTY_PATH = 4


class Inner:
    """Fills in the steps; ``fds`` are to be the worker's descriptors from ``first_fd`` on."""

    def __init__(self, steps: Steps, first_fd: int) -> None:
        self._steps = steps
        self._first = first_fd
        self._points: list[str] = []
        self.fds: list[int] = []

    def takes(self, fstype: str, destination: str) -> bool:
        """Whether a mount is one of these."""
        return fstype == "proc" or self.holds(destination)

    def holds(self, path: str) -> bool:
        """Whether a path lies in one of these."""
        path = os.path.normpath("/" + path)
        return any(within(path, point) for point in self._points)

    def mount(self, mount: Mount, options: Options) -> None:
        """:raises OSError: the source of a bind mount cannot be copied"""
        destination, fstype = mount["destination"], mount.get("type", "")
        if not self.holds(destination):
            self._points.append(os.path.normpath("/" + destination))
        says = f"mount {destination}"
        if options.bind or fstype == "bind":
            self._bind(mount["source"], destination, options, says)
        else:
            flags = options.flags | (PROC if fstype == "proc" else 0)
            source = mount.get("source", fstype)
            self._mount(source, destination, fstype, flags, options.data, says)
        for propagation in options.propagation:
            self._mount("none", destination, "", propagation, "", says)

    def _bind(self, source: str, destination: str, options: Options, says: str) -> None:
        if not os.path.exists(source):
            raise InvalidArgument(f"source {source}: {os.strerror(2)}")
        flags = PROC if within(os.path.realpath(source), "/proc") else libc.MS_NODEV
        fd = self._first + len(self.fds)
        self.fds.append(libc.clone_tree(source, bool(options.flags & libc.MS_REC), options.flags | flags))
        target = os.fsencode(destination)
        self._steps.call("move_mount", fd, b"", _AT_FDCWD, target, _MOVE_MOUNT_F_EMPTY_PATH, says=says)

    def mask(self, path: str) -> None:
        """As :func:`shimd.worker.mounts.hide` does, what /proc has on every node of this kernel."""
        if os.path.isdir(path):
            self._mount("tmpfs", path, "tmpfs", libc.MS_RDONLY, "size=0k", f"masked path {path}", Policy.IF_THERE)
        elif os.path.exists(path):
            self._mount("/dev/null", path, "", libc.MS_BIND, "", f"masked path {path}", Policy.IF_THERE)

    def _mount(
        self, source: str, target: str, fstype: str, flags: int, data: str, says: str, policy: Policy = Policy.FAIL
    ) -> None:
        arguments = (os.fsencode(source), os.fsencode(target), fstype.encode(), flags, data.encode() if data else 0)
        self._steps.call("mount", *arguments, says=says, policy=policy)
