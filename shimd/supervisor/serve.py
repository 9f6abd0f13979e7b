"""``shimd serve``: the daemon's life from start to stop.

One daemon a runtime directory, by a lock on its pid file. It stops within moments of a TERM. Apps are not its children,
but containerd ends them when it sees its connections close (``launcher/PROTOCOL.md``).
"""

import faulthandler
import fcntl
import gc
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

import anyio

from shimd import log, paths
from shimd.errors import AlreadyExists, ShimdError
from shimd.linux import libc
from shimd.supervisor import notify
from shimd.supervisor.launch_socket import LaunchServer
from shimd.supervisor.sockets import inherited_or_new
from shimd.supervisor.status.service import StatusServer
from shimd.supervisor.supervisor import Supervisor

_log = log.logger(__name__)
#: Seconds to wait for another daemon's end.
_PATIENCE = 5.0
#: Exit status that systemd does not answer with another start (RestartPreventExitStatus=).
EXIT_RUNS_ALREADY = 3


def main() -> int:
    log.configure()
    faulthandler.enable()  # the watchdog's SIGABRT leaves a stack trace in the journal
    os.umask(0o022)
    gc.freeze()  # what is imported by now stays: the collector need not look at it again and again
    try:
        with _only_one():
            anyio.run(serve)
    except AlreadyExists as error:
        _log.error("%s", error)
        return EXIT_RUNS_ALREADY
    except ShimdError as error:
        _log.error("%s", error)
        return 1
    return 0


@contextmanager
def _only_one() -> Iterator[None]:
    """Hold the pid file, locked.

    :raises AlreadyExists: another daemon does
    """
    for directory in (paths.runtime_dir(), paths.state_dir(), paths.cache_dir()):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = paths.pid_file()
    with open(path.with_suffix(".lock"), "w") as lock:  # never unlinked: who waits for it has this very file open
        _lock(lock)
        path.write_text(f"{os.getpid()}\n")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(file: IO[str]) -> None:
    """Wait a little: the daemon that has it may be about to end, and a pod's start waits for us."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise AlreadyExists(
                    f"shimd runs already in {paths.runtime_dir()}, pid {_running()}: end that one first"
                ) from None
        time.sleep(0.05)


def _running() -> str:
    try:
        return paths.pid_file().read_text().strip()
    except OSError:
        return "unknown"


async def serve() -> None:
    """Serve until TERM or INT."""
    # Workers whose fork server dies become our children, so that their exit statuses are not lost.
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    async with (
        await inherited_or_new("launch", paths.launch_socket()) as listener,
        anyio.create_task_group() as forks,
    ):
        async with anyio.create_task_group() as tasks:
            supervisor = Supervisor(tasks, forks)
            await supervisor.fork_servers.find()
            supervisor.fork_servers.end_unclaimed()
            tasks.start_soon(LaunchServer(supervisor).serve, listener)
            await tasks.start(StatusServer(supervisor).serve)
            tasks.start_soon(_watchdog)
            _log.info("serving in %s, pid %d", paths.runtime_dir(), os.getpid())
            notify.ready()
            await _stop_signal()
            notify.notify(STOPPING="1")
            _log.info("stopping")
            tasks.cancel_scope.cancel()
            supervisor.jailers.close()
        forks.cancel_scope.cancel()


async def _stop_signal() -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _number in signals:
            return


async def _watchdog() -> None:
    """Tell systemd that the loop turns, twice per interval."""
    interval = notify.watchdog_interval()
    if interval is None:
        return
    while True:
        notify.notify(WATCHDOG="1")
        await anyio.sleep(interval / 2)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        raise SystemExit(main())
