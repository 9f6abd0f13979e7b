"""The fork servers of a node: all that run are found at the daemon's start, others are started on first use.

One is current for each engine: it speaks our version of the protocol, has loaded the engine that is installed, and is
of our release of shimd. Any other that is found takes no new workers, and leaves with its last one; until then its
exits are still heard of.

One that dies, or does not answer (:mod:`.watchdog`), loses no app: each is followed as an orphan (:mod:`.orphans`).
"""

import os
import secrets
import socket
import time
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import anyio

from shimd import paths, release
from shimd.engines.registry import installed_version
from shimd.errors import ShimdError, Unavailable, reason
from shimd.linux.peer import peer_pid
from shimd.linux.pidfd import open_process, parent_of, pid_of, start_time
from shimd.log import logger
from shimd.protocol import noted_exits
from shimd.protocol.constants import VERSION
from shimd.protocol.fork_server import LASTING, Hello
from shimd.supervisor.background import Background
from shimd.supervisor.metrics.measures import NOTHING, Measures
from shimd.supervisor.shortage import once_there_is_room
from shimd.supervisor.workers.fork_client import ForkClient, Spawner, Worker, connect, launch, launch_by
from shimd.supervisor.workers.orphans import ExitOf, follow, nothing_known
from shimd.supervisor.workers.reaping import children_in_session, kill, reap
from shimd.supervisor.workers.watchdog import until_silent

_log = logger(__name__)
#: Seconds for a fork server that was found to say who it is: it may be warming up, or be stopped.
_PATIENCE = 10.0
_LOOKING = "looking for fork servers"
#: Seconds for one that was killed to be gone: the kernel may not let it end.
_LAST_BREATH = 5.0
#: Seconds for one to answer when this daemon ends.
_FAREWELL = 2.0


@dataclass(eq=False)
class ForkServer:
    """One that runs."""

    engine: str
    path: Path
    pid: int
    client: ForkClient
    version: str = ""
    """Of the engine that it has loaded; empty: not known yet, or the engine cannot run on this node."""
    release: str = ""
    """Of shimd, that it has loaded; empty: not known (yet)."""
    retiring: bool = False
    """Whether it takes no new workers."""
    pidfd: int | None = None
    """As soon as it is known for sure."""
    warm: bool = False
    """Whether it has warmed up for an earlier daemon."""
    ended: anyio.Event = field(default_factory=anyio.Event)
    """Set when the connection has."""

    @cached_property
    def started_at(self) -> float:
        """Seconds since the epoch, as far as it was there when it was first asked for; 0: it was gone."""
        with suppress(OSError, ValueError):
            ticks = start_time(self.pid)
            return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
        return 0.0

    @property
    def workers(self) -> int:
        """The number of its workers that live."""
        return len(self.client.living)


class ForkServers:
    """Those that this supervisor is connected to.

    :param tasks: what outlives all who wait for a worker's exit
    :param exit_of: what another process, a subreaper, knows of the end of a process
    :param spawn: starts fork servers as another's children; without it they are ours
    :param forget_exit: lets that other process forget what it knows
    :param parent: that process's pid; 0: it is not there now
    :param measures: is told how long a fork takes
    """

    def __init__(
        self,
        tasks: Background,
        exit_of: ExitOf = nothing_known,
        spawn: Spawner | None = None,
        forget_exit: Callable[[int, int], None] = nothing_known,
        parent: Callable[[], int] = os.getpid,
        measures: Measures = NOTHING,
    ) -> None:
        self._tasks, self._exit_of, self._spawn, self._forget_exit = tasks, exit_of, spawn, forget_exit
        self._parent, self._measures = parent, measures
        self._current: dict[str, ForkServer] = {}
        self._all: set[ForkServer] = set()
        self._unknown: dict[str, anyio.Event] = {}
        """Engines of which one was found that has not said yet whether it is current, or is being started."""
        self._unclaimed: dict[str, Worker] = {}
        """Workers of an earlier supervisor, by their keys."""
        self._orphans: dict[str, Worker] = {}
        """Those whose fork server is gone, or has not told of them yet."""
        self._bereft: dict[int, Worker] = {}
        """Those of them that somebody else may wait for, by their pids, until they are forgotten."""
        self._noted: dict[tuple[int, int], tuple[int, int]] = {}
        """Ends that fork servers which are gone have left word of, by pid and start time."""
        self._claims_are_over = False
        self._running: Container[str] = ()
        """Keys of an earlier supervisor's workers that were started."""

    def __iter__(self) -> Iterator[ForkServer]:
        return iter(sorted(self._all, key=lambda one: (one.engine, one.retiring, one.pid)))

    def pid(self, engine: str) -> int:
        """The pid of the engine's current one; 0: none runs."""
        server = self._current.get(engine)
        return 0 if server is None or server.client.closed else server.pid

    # Those of an earlier supervisor, and their workers

    async def find(self, running: Container[str] = ()) -> None:
        """Connect to all that run, of an earlier daemon, and have them tell of their workers; those that do not answer
        within some seconds are left for later.

        :param running: keys of workers that were started: they take no more descriptors than they took
        """
        self._running = running
        found = [(path, anyio.Event()) for path in await once_there_is_room(paths.fork_server_sockets, _LOOKING)]
        for path, listed in found:
            self._tasks.start_soon(self._find, path, self._expected(paths.engine_of(path)), listed)
        with anyio.move_on_after(_PATIENCE):
            for _path, listed in found:
                await listed.wait()

    def adopted(self, key: str) -> Worker | None:
        """Claim a worker of an earlier supervisor; it may have ended."""
        return self._unclaimed.pop(key, None)

    async def end_unclaimed(self) -> None:
        """Kill and forget every worker of an earlier supervisor that nobody has claimed, or will be found later: those
        that were still being made ended with that supervisor. Returns when they are gone, or will not go."""
        self._claims_are_over = True
        unclaimed, self._unclaimed = list(self._unclaimed.values()), {}
        async with anyio.create_task_group() as tasks:
            for worker in unclaimed:
                Background(tasks).start_soon(worker.forks.end, worker)

    def orphan(self, key: str, pid: int, start: int, forks: ForkClient | None = None) -> Worker:
        """Follow a worker of an earlier supervisor whose fork server is gone, or does not answer.

        :param pid: its pid, and the time of its start in clock ticks since boot, which name it for good
        :param forks: the connection to that fork server, if there was one
        """
        worker = Worker(key, pid, start, None, forks or ForkClient(None), adopted=True, orphan=True)
        with suppress(OSError):  # gone, or there is no room now
            worker.pidfd = open_process(pid, start)
        self._orphans[key] = worker
        self._follow_soon(worker)
        return worker

    def wants_exit(self, pid: int, start: int) -> bool:
        """Whether somebody may ask how this process ends: it is a worker. A start of 0 stands for any."""
        workers = [worker for server in self._all for worker in server.client.workers.values() if worker.pid == pid]
        if (bereft := self._bereft.get(pid)) is not None:
            workers.append(bereft)
        return any(start in (0, worker.start) for worker in workers)

    def _follow_soon(self, worker: Worker) -> None:
        def forget() -> None:
            if self._bereft.get(worker.pid) is worker:
                del self._bereft[worker.pid]
            self._forget_exit(worker.pid, worker.start)

        self._bereft[worker.pid] = worker
        worker.forgotten = forget
        self._tasks.start_soon(self._follow, worker)

    async def _follow(self, worker: Worker) -> None:
        try:
            await follow(worker, self._known_exit)
        finally:
            if self._orphans.get(worker.key) is worker:
                del self._orphans[worker.key]

    def _known_exit(self, pid: int, start: int) -> tuple[int, int] | None:
        return self._noted.pop((pid, start), None) or self._exit_of(pid, start)

    def _gone(self, path: Path) -> None:
        """Nobody listens there any more."""
        path.unlink(missing_ok=True)
        self._noted |= noted_exits.take(paths.noted_exits(path))

    async def _find(self, path: Path, known: anyio.Event, listed: anyio.Event) -> None:
        """Take over the one that listens there, if any does.

        :param known: to be set when it is known whether it takes new workers, or is gone
        :param listed: to be set when the workers of an earlier daemon are known, or it is gone
        """
        engine = paths.engine_of(path)
        try:
            if (sock := await self._connected(path)) is None:
                return
            pid = peer_pid(sock)
            pidfd = _open_fork_server(pid)
            client = ForkClient(sock, self._orphans, self._running)
            server = self._keep(ForkServer(engine, path, pid, client, pidfd=pidfd, warm=pidfd is not None))
            try:
                await self._greet(server)
                self._known(engine, known)
                self._adopt(server, await client.adopt())
            except ShimdError as error:
                server.retiring = True
                _log.warning("the fork server of %s, pid %d, is left to itself: %s", engine, server.pid, error)
        finally:
            self._known(engine, known)
            listed.set()

    async def _connected(self, path: Path) -> socket.socket | None:
        """A connection, however long there is no room for it: nobody else hears of its workers' exits. ``None``: it is
        gone."""
        try:
            return await once_there_is_room(partial(connect, path), _LOOKING)
        except ConnectionRefusedError:  # of a process that is gone
            self._gone(path)
        except OSError as error:
            _log.error("%s cannot be connected to: %s", path, reason(error))
        return None

    async def _greet(self, server: ForkServer) -> None:
        """Learn who it is. There may be a current one by then.

        :raises Unavailable: it is gone, or cannot be understood
        """
        server.retiring = not self._is_current(server, await server.client.hello())
        await self._settle(server)

    def _is_current(self, server: ForkServer, hello: Hello) -> bool:
        """Returns whether it speaks our version, and has loaded what is installed.

        :raises Unavailable: it speaks a version that is no more understood
        """
        if hello.version < LASTING:
            raise Unavailable(f"it speaks version {hello.version} of the protocol, and this is {VERSION}")
        server.version, server.release = hello.engine_version, hello.release
        installed = installed_version(server.engine)
        if hello.engine_version != installed:
            words = "the fork server of %s, pid %d, has loaded version %s, and %s is installed"
            _log.info(words, server.engine, server.pid, hello.engine_version or "none", installed or "none")
        same = hello.version == VERSION and hello.engine_version == installed
        return same and hello.release == release.own() and self._is_child(server)

    def _is_child(self, server: ForkServer) -> bool:
        """Returns whether its workers, if it dies, become children of who tells us how they end; or nobody could."""
        parent = self._parent()
        with suppress(OSError):
            return parent in (0, os.getpid(), parent_of(server.pid))
        return True

    def renew(self) -> None:
        """There is another parent: have fork servers for new apps that are its children."""
        for server in self._all:
            if not server.retiring and not self._is_child(server):
                server.retiring = True
                self._tasks.start_soon(_retire, server)

    def _adopt(self, server: ForkServer, workers: list[Worker]) -> None:
        words = "found the fork server of %s, pid %d, with %d workers of an earlier daemon%s"
        _log.info(words, server.engine, server.pid, len(workers), "; it takes no new ones" if server.retiring else "")
        self._unclaimed.update({worker.key: worker for worker in workers if not worker.orphan})
        if self._claims_are_over:
            self._tasks.start_soon(self.end_unclaimed)

    def leave(self) -> None:
        """This daemon ends: whoever waits for a fork server that does not answer need not wait any longer. The next
        daemon ends what that was about to make."""
        for server in self._all:
            self._tasks.start_soon(_leave, server)

    # All others

    async def get(self, engine: str) -> ForkClient:
        """The engine's current fork server.

        :raises ShimdError: it cannot be started
        """
        while (known := self._unknown.get(engine)) is not None:
            with anyio.move_on_after(_PATIENCE) as waiting:
                await known.wait()
            if waiting.cancelled_caught:
                self._known(engine, known)  # it is late: others go on without it
        if (server := self._usable(engine)) is not None:
            return server.client
        known = self._expected(engine)
        try:
            server = await self._launch(engine)
            await self._settle(server)
        finally:
            self._known(engine, known)
        return (self._usable(engine) or server).client

    def _usable(self, engine: str) -> ForkServer | None:
        server = self._current.get(engine)
        return None if server is None or server.client.closed or server.retiring else server

    async def _settle(self, server: ForkServer) -> None:
        """Have it take new workers, unless another does by now: then it leaves with its last one."""
        if not server.retiring and self._usable(server.engine) is None:
            self._current[server.engine] = server
        else:
            server.retiring = True
            await server.client.retire()

    def _expected(self, engine: str) -> anyio.Event:
        return self._unknown.setdefault(engine, anyio.Event())

    def _known(self, engine: str, known: anyio.Event) -> None:
        if self._unknown.get(engine) is known:
            del self._unknown[engine]
        known.set()

    async def _launch(self, engine: str) -> ForkServer:
        path = paths.fork_server_socket(engine, secrets.token_hex(4))
        try:
            sock, pid = launch(engine, path) if self._spawn is None else await launch_by(self._spawn, engine, path)
        except OSError as error:
            raise Unavailable(f"the fork server of {engine} does not start: {reason(error)}") from error
        _log.info("started the fork server of %s, pid %d", engine, pid)
        server = ForkServer(engine, path, pid, ForkClient(sock, self._orphans), installed_version(engine))
        with suppress(OSError):  # its greeting brings another
            server.pidfd = os.pidfd_open(pid)
        return self._keep(server)

    def _keep(self, server: ForkServer) -> ForkServer:
        server.client.forked = partial(self._measures.forked, server.engine)
        self._all.add(server)
        self._tasks.start_soon(self._run, server)
        return server

    async def _run(self, server: ForkServer) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, server)
                await server.client.run()
                server.ended.set()
                tasks.cancel_scope.cancel()
        except Exception:  # a bug of ours is not the end of its apps
            _log.exception("the connection to the fork server of %s, pid %d, failed", server.engine, server.pid)
        except BaseException:  # this daemon ends
            if server.pidfd is not None:
                os.close(server.pidfd)
            raise
        self._lost(server)

    async def _watch(self, server: ForkServer) -> None:
        """Kill it if it does not answer, so that there is another, and its apps can be followed."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_identify, server)
            await until_silent(server.client, warm=server.warm)
            words = "the fork server of %s, pid %d, does not answer, and is killed"
            _log.error(words, server.engine, server.pid)
            server.retiring = True
            if server.pidfd is not None:
                kill(server.pidfd)
            with anyio.move_on_after(_LAST_BREATH):  # what it had said before is still heard
                await server.ended.wait()
            server.client.hang_up()

    def _lost(self, server: ForkServer) -> None:
        self._all.discard(server)
        left = server.client.living
        if server.client.refused:
            _log.error("the fork server of %s, pid %d, serves another supervisor", server.engine, server.pid)
        else:
            self._gone(server.path)
            if not server.retiring or left:
                words = "the fork server of %s, pid %d, is gone; its %d apps go on"
                _log.error(words, server.engine, server.pid, len(left))
        for worker in left:
            self._follow_soon(worker)
        self._tasks.start_soon(_bury, server, {worker.pid for worker in left})


async def _retire(server: ForkServer) -> None:
    with suppress(ShimdError):
        await server.client.retire()


async def _leave(server: ForkServer) -> None:
    heard = server.client.heard
    server.client.ping()
    with anyio.move_on_after(_FAREWELL, shield=True):
        while server.client.heard == heard and not server.client.closed:  # noqa: ASYNC110
            await anyio.sleep(_FAREWELL / 100)
    if server.client.heard == heard:
        server.client.hang_up()


async def _identify(server: ForkServer) -> None:
    """Learn for sure which process it is."""
    with suppress(ShimdError):
        server.release = (await server.client.hello()).release
    pidfd = server.client.take_pidfd()
    if server.pidfd is None:
        server.pidfd = pidfd
        if pidfd is not None:
            with suppress(OSError):
                server.pid = pid_of(pidfd)
    elif pidfd is not None:
        os.close(pidfd)


def _open_fork_server(pid: int) -> int | None:
    """A descriptor of the process that listens, if it is a fork server: it does so itself once it has warmed up, and
    before who started it did."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    with suppress(OSError):
        if b"shimd.forkserver.main" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return pidfd
    os.close(pidfd)
    return None


async def _bury(server: ForkServer, workers: set[int]) -> None:
    """Wait for it, and for what else it leaves to us if we are its subreaper: zygotes, and what it had just forked."""
    if server.pidfd is None:
        return
    await reap(server.pidfd)
    async with anyio.create_task_group() as tasks:
        for pidfd in children_in_session(server.pid, workers):
            kill(pidfd)
            tasks.start_soon(reap, pidfd)
