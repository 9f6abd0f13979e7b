"""A daemon that takes the place of one that runs: it has that end, once it could begin itself (``shimd upgrade``).

So the daemon that runs is not asked to go before the next one has been loaded, and that is this one, not the one that
the keeper would start: it waits for the lock of the pid file, and the keeper pauses before it starts anything.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from shimd import paths
from shimd.supervisor import ending

#: Set by who starts such a daemon, and for it alone.
VARIABLE = "SHIMD_TAKES_OVER"


class Successor:
    """Asks those that hold the pid file to end."""

    #: Seconds that it waits; and between two looks, which is sooner than the keeper has started another.
    PATIENCE, PAUSE = 30.0, 0.005

    def __init__(self) -> None:
        self._asked: dict[int, float] = {}

    @classmethod
    def wanted(cls) -> "Successor | None":
        """If this process is one; its children, and later daemons, are none."""
        return cls() if os.environ.pop(VARIABLE, "") else None

    def press(self) -> None:
        """To be called as long as the pid file is locked."""
        pid = holder()
        if pid == 0:
            return
        now = time.monotonic()
        if pid not in self._asked:
            self._asked[pid] = now
            _tell(pid, signal.SIGTERM)
        elif now > self._asked[pid] + ending.LIMIT + 2:  # it was stopped, say
            _tell(pid, signal.SIGKILL)


def holder() -> int:
    """The pid of the daemon that the pid file names; 0: it names none."""
    try:
        pid = int(paths.pid_file().read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except (OSError, ValueError):
        return 0
    return pid if words[-1] == b"serve" and pid != os.getpid() else 0


def _tell(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
