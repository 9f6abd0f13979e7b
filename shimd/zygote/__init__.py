"""The zygote: a program in C that forks workers without Python (``zygote.c``), for the fork server that runs it."""

import os
from functools import cache
from pathlib import Path

PROGRAM = Path(__file__).with_name("_zygote")


@cache
def available() -> bool:
    """Returns whether the part in C was built, and is wanted (``SHIMD_ZYGOTE``)."""
    return PROGRAM.is_file() and os.environ.get("SHIMD_ZYGOTE", "yes") != "no"
