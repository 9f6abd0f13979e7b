"""A server as several processes, for more than one core: each with a listening socket of its own.

Threads of one process do not do: each page that a guest writes to for the first time has every other thread's processor
interrupted (measured: two cores gave 0.9 times the requests of one; two processes 1.9 times).
"""

import fcntl
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from shimd.engine import EXIT_ENGINE, EngineError
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
    children = dict(_fork(serve, before) for serve in servers)
    outcome: int | None = None
    told = False
    while children:
        number = signal.sigwait(waited)
        if number in _ENDING:  # the second time they end at once
            told = True
            _tell(children.values())
        for pid, code in _ended(children):
            os.close(children.pop(pid))
            outcome = code if outcome is None else outcome
        if outcome is not None and not told:
            told = True
            _tell(children.values())
    return outcome or 0


def _fork(serve: Callable[[], int], mask: set[int | signal.Signals]) -> tuple[int, int]:
    """Start a server in a child process; returns its pid, and the pipe end by which it is told to end."""
    rung, bell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(rung)
        return pid, bell
    code = 70
    try:
        os.close(bell)
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        _listen(rung)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = serve()
    except Exception as error:
        os.write(2, f"shimd: {error}\n".encode())
        code = EXIT_ENGINE if isinstance(error, EngineError) else code
    finally:
        os._exit(code)


def _listen(bell: int) -> None:
    """Have the kernel send SIGTERM when it rings (F_SETSIG, fcntl(2)): a container's filter lets nobody call kill."""
    fcntl.fcntl(bell, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(bell, fcntl.F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(bell, fcntl.F_SETFL, os.O_ASYNC)


def _tell(bells: Iterable[int]) -> None:
    for bell in bells:
        with suppress(BrokenPipeError):  # it has just ended
            os.write(bell, b"\0")


def _ended(children: Iterable[int]) -> list[tuple[int, int]]:
    """Reap the children that have ended; returns their pids and exit codes (128 + N for signal N, as a shell has
    it)."""
    found = [(pid, status) for pid, status in (os.waitpid(child, os.WNOHANG) for child in children) if pid]
    return [(pid, _exit_code(os.waitstatus_to_exitcode(status))) for pid, status in found]


def _exit_code(code: int) -> int:
    return code if code >= 0 else 128 - code
