"""The daemon's end has a limit, whatever it is in the middle of: a thread that hangs, a shield, a loop that stands."""

import faulthandler
import os
import signal
import sys
import time
from contextlib import suppress
from threading import Thread

from shimd import paths
from shimd.log import logger

_log = logger(__name__)
#: Seconds. Below what a successor waits for us (``serve.py``), and systemd (``TimeoutStopSec=``).
LIMIT = 4.0
#: Seconds more, after which the kernel ends a process that is in the middle of something that is not Python.
_GRACE = 1.0


def at_signals(*numbers: int) -> None:
    """The limit holds from such a signal on, even if the event loop, which is to hear of it, stands."""
    for number in numbers:
        signal.signal(number, lambda _number, _frame: begin())  # asyncio hears by its wakeup descriptor, as before


def begin() -> None:
    """From now on there is a limit."""
    if signal.getitimer(signal.ITIMER_REAL)[0]:
        return  # there is
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, LIMIT + _GRACE)
    with suppress(RuntimeError):  # no thread can be started: then the alarm
        Thread(target=_end, name="shimd: the end", daemon=True).start()


def _end() -> None:
    time.sleep(LIMIT)
    _log.error("not all has ended within %g s; what is left is left to itself", LIMIT)
    faulthandler.dump_traceback(sys.stderr)
    with suppress(OSError):
        paths.pid_file().unlink(missing_ok=True)
    os._exit(0)
