"""Children that have ended."""

import os


def first_zombie() -> int | None:
    """A child that nobody has waited for yet, left as it is; its pid (waitid(2), WNOWAIT)."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None
