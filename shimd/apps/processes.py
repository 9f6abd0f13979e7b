"""A server as several processes, for more than one core: each with a listening socket of its own.

Threads of one process do not do: each page that a guest writes to for the first time has every other thread's processor
interrupted (measured: two cores gave 0.9 times the requests of one; two processes 1.9 times).
"""

import os
import signal
from collections.abc import Callable, Sequence

from shimd.engines.base import EXIT_ENGINE, EngineError
from shimd.linux import libc

_ENDING = (signal.SIGTERM, signal.SIGINT)


def run(servers: Sequence[Callable[[], int]]) -> int:
    """Run each in a process; returns the exit code of the first that ends. The others are told to, then.

    One alone is run here. No thread may have been started.
    """
    if len(servers) == 1:
        return servers[0]()
    waited = {*_ENDING, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    children = {_fork(serve, before) for serve in servers}
    outcome: int | None = None
    told = False
    while children:
        number = signal.sigwait(waited)
        if number in _ENDING:  # the second time they end at once
            told = True
            _tell(children, number)
        for pid, code in _ended(children):
            children.discard(pid)
            outcome = code if outcome is None else outcome
        if outcome is not None and not told:
            told = True
            _tell(children, signal.SIGTERM)
    return outcome or 0


def _fork(serve: Callable[[], int], mask: set[int | signal.Signals]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = serve()
    except Exception as error:
        os.write(2, f"shimd: {error}\n".encode())
        code = EXIT_ENGINE if isinstance(error, EngineError) else code
    finally:
        os._exit(code)


def _tell(children: set[int], number: int) -> None:
    for pid in children:
        os.kill(pid, number)


def _ended(children: set[int]) -> list[tuple[int, int]]:
    """Those that have ended, with their exit codes."""
    found = [(pid, status) for pid, status in (os.waitpid(child, os.WNOHANG) for child in children) if pid]
    return [(pid, _exit_code(os.waitstatus_to_exitcode(status))) for pid, status in found]


def _exit_code(code: int) -> int:
    return code if code >= 0 else 128 - code
