"""Children that have ended."""

import os


def first_zombie() -> int | None:
    """Returns the pid of a child that has ended, and leaves it to be waited for (waitid(2), WNOWAIT)."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None
