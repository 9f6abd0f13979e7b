"""The number of files that a process may have open (getrlimit(2), ``RLIMIT_NOFILE``).

The soft limit is for programs that think of descriptors as small numbers (select(2)), and each may raise its own up to
the hard one. What we start on somebody's behalf (runc, hooks) begins with the limit that we were given.
"""

import os
import resource
from contextlib import suppress

#: The soft limit as it was given to the daemon, for all that it starts.
GIVEN = "SHIMD_SOFT_NOFILE"


def raise_descriptors() -> None:
    """As many as the hard limit allows, for this process and those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.environ.setdefault(GIVEN, str(soft))
    with suppress(OSError, ValueError):  # above fs.nr_open, which was lowered meanwhile
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def restore_descriptors() -> None:
    """The limit as it was before :func:`raise_descriptors`, of the daemon that has started this process."""
    given = os.environ.get(GIVEN, "")
    if given.lstrip("-").isdigit():
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(OSError, ValueError):  # the hard limit was lowered meanwhile
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(given), hard))


def descriptors() -> int:
    """The most that this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def has_descriptors(margin: int) -> bool:
    """Returns whether some ``margin`` descriptors are free: the kernel gives the lowest, so that its number tells."""
    try:
        lowest = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(lowest)
    most = descriptors()
    return most < 0 or lowest < most - margin
