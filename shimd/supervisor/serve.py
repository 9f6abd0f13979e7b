"""``shimd serve``: the daemon's life from start to stop.

One daemon a runtime directory, by a lock on its pid file. It first takes over what an earlier one has left
(``recovery/recover.py``). At a TERM it ends as at a KILL if it is needed, and leaves all to the next daemon: what is
cleaned up at no end cannot be forgotten by one. Else it tidies up, within a limit (``ending.py``).
"""

import faulthandler
import fcntl
import gc
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn

import anyio

from shimd import betterproto, log, paths, release, remedies, settings
from shimd.errors import AlreadyExists, FailedPrecondition, from_os
from shimd.linux import libc, limits
from shimd.linux.ownership import not_alone
from shimd.supervisor import ending, notify
from shimd.supervisor.background import Background
from shimd.supervisor.launch_socket import LaunchServer
from shimd.supervisor.metrics.setup import Metrics
from shimd.supervisor.recovery.keeper import Keeper
from shimd.supervisor.recovery.recover import recover
from shimd.supervisor.sockets import inherited_or_kept
from shimd.supervisor.status.service import StatusServer
from shimd.supervisor.successor import Successor
from shimd.supervisor.supervisor import Supervisor
from shimd.supervisor.tracing.setup import Tracing
from shimd.supervisor.workers.reaping import bury_strays

_log = log.logger(__name__)
#: Seconds to wait for another daemon's end, and between two looks.
_PATIENCE, _PAUSE = 5.0, 0.05
#: Bytes that a Unix socket's path may have (unix(7)).
_ADDRESS = 107
#: Exit status that systemd does not answer with another start (RestartPreventExitStatus=).
EXIT_RUNS_ALREADY = 3
#: Either ends it, and others that follow change nothing.
_STOPS = signal.SIGTERM, signal.SIGINT


def main() -> int:
    log.configure()
    faulthandler.enable()  # the watchdog's SIGABRT leaves a stack trace in the journal
    os.umask(0o022)
    if not release.is_whole():  # an installation went on meanwhile: not half of the one, and half of the other
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    betterproto.take_short_way()
    limits.raise_descriptors()  # containerd 2.x gives its shims 1024
    gc.freeze()  # what is imported by now stays: the collector need not look at it again and again
    try:
        settings.check()
        with _only_one():
            anyio.run(serve)
    except AlreadyExists as error:
        _log.error("%s", error)
        return EXIT_RUNS_ALREADY
    except Exception as error:
        said = remedies.told(error, "serve")
        if said is None:
            raise
        _log.error("%s", said)
        return 1
    return 0


@contextmanager
def _only_one() -> Iterator[None]:
    """Hold the pid file, locked.

    :raises AlreadyExists: another daemon does
    :raises FailedPrecondition: a directory is not its user's alone
    """
    _make_directories()
    path = paths.pid_file()
    with open(path.with_suffix(".lock"), "w") as lock:  # never unlinked: who waits for it has this very file open
        _lock(lock)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # until they are heard: the pid file would stay
        try:
            with _only_told():  # the lock counts
                _write_pid(path)
            yield
        finally:
            _remove_pid()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _make_directories() -> None:
    """Who may write to one of them is as good as root: its sockets, its journal and its machine code are believed.

    :raises FailedPrecondition: one is not this user's alone, or no socket can be in it
    """
    longest = paths.fork_server_socket("wasmtime", "12345678")
    if (excess := len(os.fsencode(longest)) - _ADDRESS) > 0:
        raise FailedPrecondition(
            f"{paths.runtime_dir()} is {excess} bytes too long for sockets in it; name another directory by "
            f"SHIMD_RUNTIME_DIR"
        )
    paths.runtime_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in (paths.state_dir(), paths.cache_dir()):
        with _only_told():  # what is compiled already needs neither
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in paths.directories():
        with _only_told():  # a disk that cannot even say whose it is fails those who need it
            if problem := not_alone(directory):
                raise FailedPrecondition(f"{problem}; {remedies.of_foreign(directory)}")


def _write_pid(path: Path) -> None:
    """In the place of a killed daemon's, which a full disk has room for; never seen empty."""
    text = f"{os.getpid():<10}\n".encode()
    with suppress(FileNotFoundError):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(fd, text, 0)
        finally:
            os.close(fd)
        return
    whole = path.with_suffix(".new")
    whole.write_bytes(text)
    whole.replace(path)


def _remove_pid() -> None:
    with _only_told():
        paths.pid_file().unlink(missing_ok=True)


@contextmanager
def _only_told() -> Iterator[None]:
    """A disk that is full or read-only need not keep the daemon from serving."""
    try:
        yield
    except OSError as error:
        _log.error("%s", from_os(error))


def _lock(file: IO[str]) -> None:
    """Wait a little: the daemon that has it may be about to end, and a pod's start waits for us."""
    successor = Successor.wanted()
    patience, pause = (successor.PATIENCE, successor.PAUSE) if successor is not None else (_PATIENCE, _PAUSE)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise AlreadyExists(
                    f"shimd runs already in {paths.runtime_dir()}, pid {_running()}: end that one first"
                ) from None
        if successor is not None:
            successor.press()
        time.sleep(pause)


def _running() -> str:
    try:
        return paths.pid_file().read_text().strip()
    except OSError:
        return "unknown"


async def serve() -> None:
    """Serve until TERM or INT."""
    # Workers whose fork server dies become our children where no keeper is, so that their exit statuses are not lost.
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    with _stop_signals() as signals:
        await _serve(signals)


async def _serve(signals: AsyncIterator[signal.Signals]) -> None:
    async with anyio.create_task_group() as outer:
        keeper = await Keeper.open(Background(outer))
        Background(outer).start_soon(bury_strays)
        async with anyio.create_task_group() as tasks:
            metrics, tracing = Metrics(), Tracing()
            supervisor = Supervisor(tasks, outer, keeper, metrics.measures, tracing.calls)
            exporter = metrics.exporter(supervisor)  # which counts what is told from here on
            listener = await inherited_or_kept("launch", paths.launch_socket(), keeper)
            await recover(supervisor)
            tasks.start_soon(LaunchServer(supervisor).serve, listener)
            await tasks.start(StatusServer(supervisor).serve)
            tasks.start_soon(_watchdog)
            if exporter is not None:
                Background(tasks).start_soon(exporter.serve)
            _log.info("serving in %s, pid %d", paths.runtime_dir(), os.getpid())
            notify.ready()
            await anext(signals)
            notify.notify(STOPPING="1")
            await tracing.end()
            if supervisor.is_needed and keeper.available:
                await keeper.told()
                _leave()
            _log.info("stopping")
            supervisor.fork_servers.leave()
            keeper.quit()
            tasks.cancel_scope.cancel()
            supervisor.jailers.close()
        outer.cancel_scope.cancel()


def _leave() -> NoReturn:
    """End at once: what is under way is the next daemon's, as after a KILL."""
    _log.info("stopping; the tasks go on, and are the next daemon's")
    _remove_pid()
    os._exit(0)


@contextmanager
def _stop_signals() -> Iterator[AsyncIterator[signal.Signals]]:
    try:
        with anyio.open_signal_receiver(*_STOPS) as signals:
            ending.at_signals(*_STOPS)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
            yield signals
    finally:
        ending.at_signals(*_STOPS)  # what the receiver has left would end us in the middle of what is still to be done


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
