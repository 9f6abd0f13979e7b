"""The fork servers of a node: all that run are found at the daemon's start, others are started on first use.

One is current for each engine: it speaks our version of the protocol, has loaded the engine that is installed, and was
started by our release of shimd. Any other that is found takes no new workers, and leaves with its last one; until then its exits are still heard of.
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio

from shimd import paths, release
from shimd.engines.registry import installed_version
from shimd.errors import ShimdError, Unavailable, reason
from shimd.linux.peer import peer_pid
from shimd.linux.zombies import first_zombie
from shimd.log import logger
from shimd.supervisor.background import Background
from shimd.supervisor.workers.fork_client import ForkClient, Worker, connect, launch

_log = logger(__name__)
#: Wait status of a process whose real one nobody can tell any more: killed by SIGKILL, as containerd assumes too.
_UNKNOWN = 9
#: Seconds for a fork server that was found to say who it is: it may be warming up, or be stopped.
_PATIENCE = 10.0


@dataclass(eq=False)
class ForkServer:
    """One that runs."""

    engine: str
    path: Path
    pid: int
    client: ForkClient
    version: str = ""
    """Of the engine that it has loaded; empty: not known yet, or the engine cannot run on this node."""
    retiring: bool = False
    """Whether it takes no new workers."""

    @property
    def workers(self) -> int:
        """The number of its workers that live."""
        return len(self.client.living)


class ForkServers:
    """Those that this supervisor is connected to."""

    def __init__(self, tasks: Background) -> None:
        self._tasks = tasks
        self._current: dict[str, ForkServer] = {}
        self._all: set[ForkServer] = set()
        self._unknown: dict[str, anyio.Event] = {}
        """Engines of which one was found that has not said yet whether it is current."""

    def __iter__(self) -> Iterator[ForkServer]:
        return iter(sorted(self._all, key=lambda one: (one.engine, one.retiring, one.pid)))

    def pid(self, engine: str) -> int:
        """The pid of the engine's current one; 0: none runs."""
        server = self._current.get(engine)
        return 0 if server is None or server.client.closed else server.pid

    def find(self) -> None:
        """Connect to all that run, of an earlier daemon."""
        for path in paths.fork_server_sockets():
            try:
                sock = connect(path)
            except OSError:
                path.unlink(missing_ok=True)  # a process that is gone
                continue
            server = self._keep(paths.engine_of(path), path, peer_pid(sock), ForkClient(sock))
            known = self._unknown.setdefault(server.engine, anyio.Event())
            self._tasks.start_soon(self._inherit, server, known)

    async def get(self, engine: str) -> ForkClient:
        """The engine's current fork server.

        :raises Unavailable: it cannot be started
        """
        while (known := self._unknown.get(engine)) is not None:
            await known.wait()
        server = self._current.get(engine)
        if server is None or server.client.closed:
            server = self._current[engine] = self._launch(engine)
        return server.client

    def _launch(self, engine: str) -> ForkServer:
        path = paths.fork_server_socket(engine, secrets.token_hex(4))
        try:
            sock, pid = launch(engine, path)
        except OSError as error:
            raise Unavailable(f"the fork server of {engine} does not start: {reason(error)}") from error
        _log.info("started the fork server of %s, pid %d", engine, pid)
        server = self._keep(engine, path, pid, ForkClient(sock))
        server.version = installed_version(engine)
        return server

    def _keep(self, engine: str, path: Path, pid: int, client: ForkClient) -> ForkServer:
        server = ForkServer(engine, path, pid, client)
        self._all.add(server)
        self._tasks.start_soon(self._run, server)
        return server

    async def _run(self, server: ForkServer) -> None:
        await server.client.run()
        self._all.discard(server)
        server.path.unlink(missing_ok=True)
        left = server.client.living
        if not server.retiring or left:
            words = "the fork server of %s, pid %d, is gone; its %d apps go on"
            _log.error(words, server.engine, server.pid, len(left))
        _reap(server.pid)
        self._tasks.start_soon(_bury, {worker.pid for worker in left})
        async with anyio.create_task_group() as tasks:
            for worker in left:
                tasks.start_soon(_adopt, worker)

    async def _inherit(self, server: ForkServer, known: anyio.Event) -> None:
        """Workers of an earlier daemon: containerd has given their tasks up and ends them by the launcher's
        ``delete``. Those that were still being made ended with that daemon."""
        try:
            server.retiring = not await self._is_current(server)
            if not server.retiring and server.engine not in self._current:
                self._current[server.engine] = server
            else:
                server.retiring = True
                await server.client.retire()
            workers = await server.client.adopt()
        except ShimdError as error:
            server.retiring = True
            _log.warning("the fork server of %s, pid %d, is left to itself: %s", server.engine, server.pid, error)
            return
        finally:
            if self._unknown.get(server.engine) is known:
                del self._unknown[server.engine]
            known.set()
        words = "found the fork server of %s, pid %d, with %d workers of an earlier daemon%s"
        _log.info(words, server.engine, server.pid, len(workers), "; it takes no new ones" if server.retiring else "")
        for worker in workers:
            await worker.exited.wait()
            with suppress(Unavailable):
                await server.client.forget(worker)

    async def _is_current(self, server: ForkServer) -> bool:
        """Returns whether it has loaded what is installed.

        :raises Unavailable: it speaks another version of the protocol, or nothing
        """
        try:
            with anyio.fail_after(_PATIENCE):
                hello = await server.client.hello()
        except TimeoutError:
            raise Unavailable(f"it has not answered within {_PATIENCE:.0f} s") from None
        server.version = hello.engine_version
        installed = installed_version(server.engine)
        if hello.engine_version != installed:
            words = "the fork server of %s, pid %d, has loaded version %s, and %s is installed"
            _log.info(words, server.engine, server.pid, hello.engine_version or "none", installed or "none")
        return hello.engine_version == installed and release.of(server.pid) == release.own()


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
