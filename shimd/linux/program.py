"""Which program a process runs."""

from pathlib import Path


def runs(pid: int, program: Path) -> bool:
    """Returns whether a process runs what is in a file now, and not what was there, or is elsewhere; ``True``, too,
    where that cannot be told."""
    try:
        with open(f"/proc/{pid}/exe", "rb") as running, open(program, "rb") as installed:
            return running.read() == installed.read()
    except OSError:
        return True
