"""Namespaces: their kinds, and how to come into them (namespaces(7))."""

import errno
import os
from contextlib import suppress

from shimd.linux import libc
from shimd.linux.cgroup import join as move
from shimd.linux.fork import fork

#: The spec's names (config-linux.md, Namespaces) → flag, and name under /proc/PID/ns.
KINDS = {
    "cgroup": (libc.CLONE_NEWCGROUP, "cgroup"),
    "ipc": (libc.CLONE_NEWIPC, "ipc"),
    "mount": (libc.CLONE_NEWNS, "mnt"),
    "network": (libc.CLONE_NEWNET, "net"),
    "pid": (libc.CLONE_NEWPID, "pid"),
    "time": (libc.CLONE_NEWTIME, "time"),
    "user": (libc.CLONE_NEWUSER, "user"),
    "uts": (libc.CLONE_NEWUTS, "uts"),
}


#: A kernel before 5.7, or a C library that :mod:`shimd.linux.fork` does not know: fork, then move.
NO_CLONE3 = (errno.ENOSYS, errno.E2BIG, errno.EINVAL)
#: Our own pid namespace, while our children would be born in another.
_away: list[int] = []


def fork_into(which: str | None, cgroup: str | None = None) -> int:
    """Fork; the child is in a pid namespace (``new``, the one at a path, or ``None`` for ours) and in the version 2
    cgroup ``cgroup``, the parent stays.

    A pid namespace is entered by one's *next* child only, which is why the fork server does this and not the worker.

    :raises OSError: as of clone3(2), setns(2)
    """
    _come_home()
    if which is None:
        return _fork(0, cgroup)
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    pid = -1
    try:
        if which != "new":
            join(which, libc.CLONE_NEWPID)
        pid = _fork(libc.CLONE_NEWPID if which == "new" else 0, cgroup)
    finally:
        if pid != 0:
            _away.append(own)
            with suppress(OSError):  # for want of memory: before the next fork at the latest
                _come_home()
        else:
            os.close(own)
    return pid


def _come_home() -> None:
    """:raises OSError: our children would still be born in another pid namespace than ours"""
    while _away:
        libc.setns(_away[-1], libc.CLONE_NEWPID)
        os.close(_away.pop())


def _fork(flags: int, cgroup: str | None) -> int:
    directory = None if cgroup is None else os.open(cgroup, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return fork(flags, directory)
    except OSError as error:
        if error.errno not in NO_CLONE3:
            raise
    finally:
        if directory is not None:
            os.close(directory)
    return _fork_in_steps(flags, cgroup)


def _fork_in_steps(flags: int, cgroup: str | None) -> int:
    if flags:
        libc.unshare(flags)
    pid = os.fork()
    if pid == 0 and cgroup is not None:
        try:
            move([cgroup])
        except OSError:
            os._exit(1)  # an error would come out in the fork server's loop, with two processes in it
    return pid


def open_namespace(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def join(path: str, flag: int) -> None:
    fd = open_namespace(path)
    try:
        libc.setns(fd, flag)
    finally:
        os.close(fd)
