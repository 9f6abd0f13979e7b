"""The keeper: a program in C (``keeper.c``) that holds what must outlive the supervisor: descriptors by name, the
processes of fork servers and their exit statuses. :mod:`shimd.supervisor.recovery.keeper` is its other end.
"""

import sys
from pathlib import Path

NAME = "shimd-keeper"


def program() -> Path | None:
    """Returns where it is: beside the program that runs, or beside its interpreter; ``None``: no C compiler was there
    at the installation."""
    for neighbour in (Path(sys.argv[0]).resolve(), Path(sys.executable)):
        if (path := neighbour.with_name(NAME)).is_file():
            return path
    return None
