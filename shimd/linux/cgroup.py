"""Moves a worker into its container's cgroups. Imports nothing, for the worker's memory's sake."""

import os
from collections.abc import Sequence


def join(directories: Sequence[str]) -> None:
    """Move this process, which must have one thread only, into a cgroup: one directory per hierarchy.

    In version 1 by ``tasks`` rather than ``cgroup.procs``: since Linux 5.12 a thread that moves just itself does not
    take the node-wide lock that every fork and exit needs, nor wait for an RCU grace period (docs/design.md). Version 2
    has no such file.

    :raises OSError: naming the file
    """
    for directory in directories:
        try:
            fd = os.open(directory + "/tasks", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            fd = os.open(directory + "/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"0")
        except OSError as error:
            raise OSError(error.errno, error.strerror, directory) from None
        finally:
            os.close(fd)
