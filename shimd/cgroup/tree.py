"""Making and removing a cgroup's directories."""

import errno
import os
import time

from shimd.cgroup.files import read, read_if_there, write
from shimd.errors import AlreadyExists

_REMOVE_TIMEOUT = 1.0


def make(directory: str, *, anew: bool = True) -> None:
    """Make it anew, with the parents that lack; one that somebody left behind is replaced, with its limits and counts.

    :param anew: replace one that is there; else it stays as it is

    :raises AlreadyExists: it is in use
    """
    try:
        os.mkdir(directory, 0o755)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(directory), 0o755, exist_ok=True)
        os.mkdir(directory, 0o755)
    except FileExistsError:
        if anew:
            _replace(directory)


def _replace(directory: str) -> None:
    try:
        os.rmdir(directory)
    except OSError as error:
        raise AlreadyExists(f"cgroup {directory} exists and is in use") from error
    os.mkdir(directory, 0o755)


def inherit_cpuset(root: str, directory: str) -> None:
    """Copy the parent's CPUs and memory nodes: in version 1 a fresh cpuset has none, and no process may enter it.

    From the root on down, where they are empty: a parent may have been limited on purpose.
    """
    parent = os.path.dirname(directory)
    for name in ("/cpuset.cpus", "/cpuset.mems"):
        value = read(parent + name)
        if not value and len(parent) > len(root):
            inherit_cpuset(root, parent)
            value = read(parent + name)
        if not read(directory + name):
            write(directory + name, value)


def enable_controllers(root: str, directory: str) -> None:
    """Hand all controllers down from version 2's root, so that ``directory`` has their files.

    Skips those that cannot be: not there, or the cgroup on the way has processes of its own. Setting a limit says so.
    """
    relative = os.path.relpath(os.path.dirname(directory), root)
    steps = [] if relative == "." else relative.split("/")
    for depth in range(len(steps) + 1):
        _enable("/".join([root, *steps[:depth]]))


def _enable(directory: str) -> None:
    there = (read_if_there(directory + "/cgroup.controllers") or "").split()
    enabled = (read_if_there(directory + "/cgroup.subtree_control") or "").split()
    lacking = [f"+{name}" for name in there if name not in enabled]
    if lacking and not _try_write(directory, " ".join(lacking)):  # all or nothing, says the kernel: so one by one
        for name in lacking:
            _try_write(directory, name)


def _try_write(directory: str, value: str) -> bool:
    try:
        write(directory + "/cgroup.subtree_control", value)
    except OSError:
        return False
    return True


def remove(directory: str) -> None:
    """Remove it and all below; wait a second at most for processes that are dying. Parents stay, as with runc.

    :raises OSError: EBUSY: processes live in it
    """
    deadline = time.monotonic() + _REMOVE_TIMEOUT
    pause = 0.0005
    while not _removed(directory):
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), directory)
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _removed(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return _removed_below(directory) and removed(directory)
    return True


def _removed_below(directory: str) -> bool:
    with os.scandir(directory) as entries:
        children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    gone = [_removed(child) for child in children]  # all of them, before judging
    return bool(gone) and all(gone)


def removed(directory: str) -> bool:
    """Returns whether it is gone now, nothing being in it."""
    try:
        os.rmdir(directory)
    except OSError as error:
        return error.errno == errno.ENOENT
    return True
