"""A mount's options, as mount(8) and the runtime spec name them (config.md, "Linux mount options")."""

import os

from shimd.errors import InvalidArgument, Unimplemented
from shimd.linux import libc
from shimd.oci import Spec

#: Option → (flags to set, flags to clear), as mount(8) names them.
_FLAGS: dict[str, tuple[int, int]] = {
    "defaults": (0, 0),
    "ro": (libc.MS_RDONLY, 0),
    "rw": (0, libc.MS_RDONLY),
    "nosuid": (libc.MS_NOSUID, 0),
    "suid": (0, libc.MS_NOSUID),
    "nodev": (libc.MS_NODEV, 0),
    "dev": (0, libc.MS_NODEV),
    "noexec": (libc.MS_NOEXEC, 0),
    "exec": (0, libc.MS_NOEXEC),
    "sync": (libc.MS_SYNCHRONOUS, 0),
    "async": (0, libc.MS_SYNCHRONOUS),
    "dirsync": (libc.MS_DIRSYNC, 0),
    "remount": (libc.MS_REMOUNT, 0),
    "noatime": (libc.MS_NOATIME, 0),
    "atime": (0, libc.MS_NOATIME),
    "nodiratime": (libc.MS_NODIRATIME, 0),
    "diratime": (0, libc.MS_NODIRATIME),
    "relatime": (libc.MS_RELATIME, 0),
    "norelatime": (0, libc.MS_RELATIME),
    "strictatime": (libc.MS_STRICTATIME, 0),
    "nostrictatime": (0, libc.MS_STRICTATIME),
    "bind": (libc.MS_BIND, 0),
    "rbind": (libc.MS_BIND | libc.MS_REC, 0),
    "iversion": (libc.MS_I_VERSION, 0),
    "noiversion": (0, libc.MS_I_VERSION),
    "lazytime": (libc.MS_LAZYTIME, 0),
    "nolazytime": (0, libc.MS_LAZYTIME),
    "loud": (0, libc.MS_SILENT),
    "silent": (libc.MS_SILENT, 0),
    "mand": (libc.MS_MANDLOCK, 0),
    "nomand": (0, libc.MS_MANDLOCK),
    "nosymfollow": (libc.MS_NOSYMFOLLOW, 0),
    "symfollow": (0, libc.MS_NOSYMFOLLOW),
}
#: The same for all that is mounted below (mount_setattr(2)): attributes to set, and to clear before.
_RECURSIVE = {
    "rro": (libc.MOUNT_ATTR_RDONLY, 0),
    "rnosuid": (libc.MOUNT_ATTR_NOSUID, 0),
    "rnodev": (libc.MOUNT_ATTR_NODEV, 0),
    "rnoexec": (libc.MOUNT_ATTR_NOEXEC, 0),
    "rnodiratime": (libc.MOUNT_ATTR_NODIRATIME, 0),
    "rnosymfollow": (libc.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "rrelatime": (libc.MOUNT_ATTR_RELATIME, libc.MOUNT_ATTR__ATIME),
    "rnoatime": (libc.MOUNT_ATTR_NOATIME, libc.MOUNT_ATTR__ATIME),
    "rstrictatime": (libc.MOUNT_ATTR_STRICTATIME, libc.MOUNT_ATTR__ATIME),
}
#: A native container may have them.
_REFUSED = {
    **dict.fromkeys(("idmap", "ridmap"), "id-mapped mounts are not supported for WebAssembly containers"),
    **dict.fromkeys(
        "rrw rsuid rdev rexec rdiratime rsymfollow ratime rnorelatime rnostrictatime".split(),
        "restrictions of what is mounted below a volume are not lifted for WebAssembly containers",
    ),
}
PROPAGATION = {
    "private": libc.MS_PRIVATE,
    "rprivate": libc.MS_PRIVATE | libc.MS_REC,
    "shared": libc.MS_SHARED,
    "rshared": libc.MS_SHARED | libc.MS_REC,
    "slave": libc.MS_SLAVE,
    "rslave": libc.MS_SLAVE | libc.MS_REC,
    "unbindable": libc.MS_UNBINDABLE,
    "runbindable": libc.MS_UNBINDABLE | libc.MS_REC,
}
#: Options that are not the kernel's, and what only other runtimes act on.
_IGNORED = frozenset({"tmpcopyup", "auto", "noauto", "user", "users", "nofail", "_netdev"})
#: Of every mount of /proc: writable, /proc/self/mem is a way out of the WebAssembly sandbox for a guest that opens "/".
PROC = libc.MS_RDONLY | libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
#: Flags that a bind mount takes only by being mounted once more.
REMOUNTED = ~(libc.MS_BIND | libc.MS_REC | libc.MS_REMOUNT)


class MountOptions:
    """A mount's options, sorted into what mount(2) wants."""

    def __init__(self, options: list[str]) -> None:
        self.flags = 0
        self.propagation: list[int] = []
        self.copy_up = "tmpcopyup" in options
        """True if a tmpfs starts with a copy of the directory that it is mounted upon (``tmpcopyup``)."""
        self.recursive = 0
        self.recursive_clear = 0
        self.is_recursive = False
        """True if attributes of all mounts below are to be changed as well (mount_setattr(2), AT_RECURSIVE)."""
        data = []
        for option in options:
            if option in _FLAGS:
                add, remove = _FLAGS[option]
                self.flags = self.flags & ~remove | add
            elif option in PROPAGATION:
                self.propagation.append(PROPAGATION[option])
            elif option in _RECURSIVE:
                add, remove = _RECURSIVE[option]
                self.recursive = self.recursive & ~remove | add
                self.recursive_clear |= remove
                self.is_recursive = True
            elif option not in _IGNORED and option not in _REFUSED and not option.startswith("X-"):
                data.append(option)
        self.data = ",".join(data)

    @property
    def bind(self) -> bool:
        return bool(self.flags & libc.MS_BIND)

    @property
    def readonly(self) -> bool:
        return bool(self.flags & libc.MS_RDONLY or self.recursive & libc.MOUNT_ATTR_RDONLY)


def refuse_options(spec: Spec) -> None:
    """Refuse options of mounts that a WebAssembly container cannot have, or that nobody would act on, as runc does.

    :raises Unimplemented: one sentence that names the mount and the option
    :raises InvalidArgument: likewise
    """
    for mount in spec.get("mounts", []):
        options, where = mount.get("options", []), f"mounts[].options of {mount['destination']}"
        if refused := next((option for option in options if option in _REFUSED), None):
            raise Unimplemented(f"{where}: {refused}: {_REFUSED[refused]}")
        found = MountOptions(options)
        if found.data and (found.bind or mount.get("type") == "bind"):
            raise InvalidArgument(f"{where}: a bind mount takes no options of a file system: {found.data}")


def bind_flags(real: str) -> int:
    """Returns the flags of every bind mount of a node's path, whatever is asked for: its devices are unusable."""
    if within(real, "/proc"):
        return PROC
    return 0 if within(real, "/dev") else libc.MS_NODEV


def normal(path: str) -> str:
    """Normalise a path of the container's: absolute, without ``.``, ``..`` and double slashes (normpath keeps a leading
    two)."""
    return os.path.normpath("/" + path.lstrip("/"))


def within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
