"""A mount's options, as mount(8) and the runtime spec name them (config.md, "Linux mount options")."""

import os

from shimd.linux import libc

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
#: Options that are not the kernel's: recursive read-only, and what only other runtimes act on.
_RECURSIVE_READONLY = "rro"
_IGNORED = frozenset({"tmpcopyup", "auto", "noauto", "user", "users", "nofail", "_netdev"})
#: Of every mount of /proc: writable, /proc/self/mem is a way out of the WebAssembly sandbox for a guest that opens "/".
PROC = libc.MS_RDONLY | libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
#: Flags that a bind mount takes only by being mounted once more.
REMOUNTED = ~(libc.MS_BIND | libc.MS_REC | libc.MS_REMOUNT)


class Options:
    """A mount's options, sorted into what mount(2) wants."""

    def __init__(self, options: list[str]) -> None:
        self.flags = 0
        self.propagation: list[int] = []
        self.recursive_readonly = _RECURSIVE_READONLY in options
        data = []
        for option in options:
            if option in _FLAGS:
                add, remove = _FLAGS[option]
                self.flags = self.flags & ~remove | add
            elif option in PROPAGATION:
                self.propagation.append(PROPAGATION[option])
            elif option not in _IGNORED and option != _RECURSIVE_READONLY and not option.startswith("X-"):
                data.append(option)
        self.data = ",".join(data)

    @property
    def bind(self) -> bool:
        return bool(self.flags & libc.MS_BIND)

    @property
    def readonly(self) -> bool:
        return self.recursive_readonly or bool(self.flags & libc.MS_RDONLY)


def bind_flags(real: str) -> int:
    """What a bind mount of a path of the node's gets whatever is asked for; a volume's device files are nobody's."""
    if within(real, "/proc"):
        return PROC
    return 0 if within(real, "/dev") else libc.MS_NODEV


def normal(path: str) -> str:
    """A path of the container's, absolute, in its one form (normpath(3) keeps two slashes at the beginning)."""
    return os.path.normpath("/" + path.lstrip("/"))


def within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
