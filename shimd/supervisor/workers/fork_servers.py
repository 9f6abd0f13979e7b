"""The fork servers that this supervisor is connected to: one per engine, found or started on first use."""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

import anyio

from shimd import paths
from shimd.errors import Unavailable, reason
from shimd.linux.peer import peer_pid
from shimd.linux.zombies import first_zombie
from shimd.log import logger
from shimd.supervisor.background import Background
from shimd.supervisor.workers.fork_client import Forks, Worker, connect, launch

_log = logger(__name__)
#: Wait status of a process whose real one nobody can tell any more: killed by SIGKILL, as containerd assumes too.
_UNKNOWN = 9


class ForkPool:
    def __init__(self, tasks: Background) -> None:
        self._tasks = tasks
        self._pool: dict[str, Forks] = {}
        self.pids: dict[str, int] = {}
        """Of the fork servers that run, by engine."""

    async def get(self, engine: str) -> Forks:
        """The engine's fork server.

        :raises Unavailable: it cannot be started
        """
        forks = self._pool.get(engine)
        if forks is None or forks.closed:
            forks = self._pool[engine] = self._open(engine)
        return forks

    def _open(self, engine: str) -> Forks:
        path = paths.worker_socket(engine)
        try:
            sock = connect(path)
        except OSError:
            return self._launch(engine, path)
        forks = self._keep(engine, sock, peer_pid(sock))
        self._tasks.start_soon(_inherit, engine, forks)
        return forks

    def _launch(self, engine: str, path: Path) -> Forks:
        try:
            sock, pid = launch(engine, path)
        except OSError as error:
            raise Unavailable(f"the fork server of {engine} does not start: {reason(error)}") from error
        _log.info("started the fork server of %s, pid %d", engine, pid)
        return self._keep(engine, sock, pid)

    def _keep(self, engine: str, sock: socket.socket, pid: int) -> Forks:
        forks = Forks(sock)
        self.pids[engine] = pid
        self._tasks.start_soon(self._run, engine, forks, pid)
        return forks

    async def _run(self, engine: str, forks: Forks, pid: int) -> None:
        await forks.run()
        if self.pids.get(engine) == pid:
            del self.pids[engine]
        _log.error("the fork server of %s, pid %d, is gone; its %d apps go on", engine, pid, len(forks.orphans))
        _reap(pid)
        self._tasks.start_soon(_bury, {worker.pid for worker in forks.orphans})
        async with anyio.create_task_group() as tasks:
            for worker in forks.orphans:
                tasks.start_soon(_adopt, worker)


async def _inherit(engine: str, forks: Forks) -> None:
    """Workers of an earlier daemon: containerd has given their tasks up and ends them by the launcher's ``delete``.
    Those that were still being made ended with that daemon."""
    workers = await forks.adopt()
    _log.info("found the fork server of %s with %d workers of an earlier daemon", engine, len(workers))
    for worker in workers:
        await worker.exited.wait()
        await forks.forget(worker)


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):  # an earlier daemon's child, not ours
        os.waitpid(pid, os.WNOHANG)


async def _bury(workers: set[int]) -> None:
    """The others that a fork server leaves to us when it dies: its zygote, which ends by itself."""
    for _ in range(20):
        found = first_zombie()
        if found is not None and found not in workers:
            _reap(found)
        else:
            await anyio.sleep(0.1)


async def _adopt(worker: Worker) -> None:
    """Wait for a worker whose fork server died. It is our child now, if we are its nearest subreaper (prctl(2))."""
    try:
        pidfd = os.pidfd_open(worker.pid)
    except ProcessLookupError:
        worker.gone(_UNKNOWN, time.time_ns())
        return
    try:
        await anyio.wait_readable(pidfd)
        worker.gone(_wait(pidfd), time.time_ns())
    finally:
        os.close(pidfd)


def _wait(pidfd: int) -> int:
    try:
        info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        return _UNKNOWN
    assert info is not None
    return info.si_status << 8 if info.si_code == os.CLD_EXITED else info.si_status
