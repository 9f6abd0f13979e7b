"""The supervisor's end of a fork server: start one, have it fork workers, learn of their exits.

Only this module and :mod:`shimd.forkserver.main` speak the protocol of :mod:`shimd.protocol.fork_server`.
"""

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never, cast

import anyio

from shimd.engines.registry import engine_reference, installed_version
from shimd.errors import Internal, ShimdError, Unavailable, Unimplemented, from_code, from_os
from shimd.linux.memory_file import memory_file
from shimd.linux.pidfd import open_process
from shimd.linux.spawn import spawn
from shimd.protocol.codec import NotAMessage
from shimd.protocol.constants import LISTEN_FD, VERSION
from shimd.protocol.fork_server import (
    End,
    Event,
    Exited,
    Failed,
    Follow,
    Forget,
    Hello,
    List,
    Listed,
    Ping,
    Pong,
    Refused,
    Request,
    Retire,
    Spawn,
    Spawned,
    decode_event,
)
from shimd.protocol.packets import LostDescriptors, message_file, receive, send
from shimd.protocol.plans import WorkerPlan
from shimd.protocol.worker import Answer, Enter, Error, Order, Start
from shimd.protocol.worker import Event as WorkerEvent
from shimd.protocol.worker import decode_event as decode_worker_event
from shimd.supervisor.tracing.steps import step
from shimd.supervisor.workers.witness import Witness

#: Seconds for which whoever is cancelled still waits for the end of what was begun: the kernel may not let it end.
_LONGEST_SHIELD = 30.0
#: Seconds until what failed for want of memory is tried again.
_SOON = 0.1
#: Starts a program as another's child (``recovery/keeper.py``): its words, environment and descriptors; its pid.
Spawner = Callable[[Sequence[str], Mapping[str, str], Mapping[int, int]], Awaitable[int]]


@dataclass(frozen=True)
class Birthplace:
    """The namespace and the cgroup that a worker is forked in."""

    pidns: str | None = None
    """The pid namespace: ``new``, the path of one, or ``None`` for the node's."""
    cgroup: str | None = None
    """The directory of a version 2 cgroup, or ``None`` for the fork server's."""


ANYWHERE = Birthplace()


@dataclass(eq=False)
class Worker:
    """One forked process, until :meth:`ForkClient.forget`."""

    key: str
    pid: int
    start: int
    """Start time in clock ticks since boot; with the pid it names the process for good."""
    control: socket.socket | None
    """Until it is started, unless nothing can be said to it any more."""
    forks: "ForkClient"
    """The connection to the fork server that it is a child of."""
    pidfd: int | None = None
    """Until it has exited. ``None``: this process had no room for it."""
    handled: frozenset[int] = frozenset()
    """Signals that its app handles itself."""
    status: int | None = None
    """The wait status (``os.waitstatus_to_exitcode`` reads it), once it has exited."""
    exited_at: int = 0
    """Nanoseconds since the epoch."""
    died_at: int = 0
    """The same, as we have seen it end; 0: we have not."""
    witness: Witness | None = None
    """Who sees it."""
    adopted: bool = False
    """Spawned by an earlier supervisor."""
    orphan: bool = False
    """Whether it was taken for one whose fork server is gone."""
    starts: bool = False
    """Whether it was told to start, or is as soon as anything can be said to it."""
    unwanted: bool = False
    """Whether nobody waits for its exit."""
    followed: bool = False
    """Whether somebody waits by its pidfd, who closes it then."""
    alone: bool = False
    """Whether its app is one process, whatever it does."""
    exited: anyio.Event = field(default_factory=anyio.Event)
    forgotten: Callable[[], None] | None = None
    """Called when nobody has to do with it any more."""

    async def receive(self) -> tuple[WorkerEvent, list[int]] | None:
        """The next message with its descriptors, which the caller owns; ``None`` when the worker is gone.

        :raises ResourceExhausted: there is no room for the descriptors
        """
        while self.control is not None:
            await anyio.wait_readable(self.control)
            try:
                return receive(self.control, decode_worker_event)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                break
            except NotAMessage as error:
                raise Internal(f"the worker process {error}") from error
            except OSError as error:
                raise from_os(error) from error
        return None

    def send(self, message: Answer | Order | Enter, fds: Sequence[int] = ()) -> None:
        """After ``Start`` nothing more can be said.

        :raises Unavailable: the worker is gone
        """
        self.starts = self.starts or isinstance(message, Start)
        if self.control is None:
            raise Unavailable("the worker process is gone")
        try:
            send(self.control, message, fds)
        except OSError as error:
            raise Unavailable("the worker process is gone") from error
        if isinstance(message, Start):
            self.close_control()

    def signal(self, number: int) -> None:
        """Never by the pid, which may be somebody else's.

        :raises ProcessLookupError: it has exited
        :raises OSError: there is no room for a descriptor of it
        """
        if self.status is not None:
            raise ProcessLookupError
        if self.pidfd is None:
            self.pidfd = open_process(self.pid, self.start)
        signal.pidfd_send_signal(self.pidfd, number)

    async def becomes_another(self) -> None:
        """Wait until it has become another program.

        :raises ShimdError: it says why it could not
        """
        packet = await self.receive()
        if packet is not None:
            message, fds = packet
            for fd in fds:
                os.close(fd)
            assert isinstance(message, Error)
            raise from_code(message.code, message.message)

    @property
    def has_ended(self) -> bool:
        """Whether it has, be it told or not: a process that nobody has waited for takes signals, and dies of none."""
        if self.status is not None or self.died_at:
            return True
        if self.pidfd is None:
            return False
        look = select.poll()
        look.register(self.pidfd, select.POLLIN)
        return bool(look.poll(0))

    def abandon(self) -> None:
        """Kill it; it is forgotten when it has exited."""
        if self.status is not None:
            self.forks.leave(self)
            return
        self.unwanted = True
        try:
            self.signal(signal.SIGKILL)
        except ProcessLookupError:
            pass
        except OSError:  # its fork server has the descriptor that we have no room for
            self.forks.leave(self)

    def gone(self, status: int, at: int) -> None:
        """Note the exit. What the worker said before it is still there to :meth:`receive`."""
        self.status, self.exited_at = status, min(at, self.died_at or at)
        self.close_pidfd()
        self.exited.set()

    def close_control(self) -> None:
        """Say nothing more to it, and hear nothing."""
        if self.control is not None:
            self.control.close()
            self.control = None

    def close(self) -> None:
        """Nobody has to do with it any more."""
        self.close_control()
        self.close_pidfd()
        forgotten, self.forgotten = self.forgotten, None
        if forgotten is not None:
            forgotten()

    def close_pidfd(self) -> None:
        if self.pidfd is not None and not self.followed:
            if self.witness is not None:
                self.witness.forget(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = None


class PendingWorker:
    """A worker that was asked for. It may exist from then on, so that its owner must learn of it, whoever cancels."""

    def __init__(self, forks: "ForkClient", *, is_forked: bool = True) -> None:
        """:param is_forked: not so one that is there, and is only followed"""
        self.forks = forks
        self._since, self._is_forked = time.monotonic(), is_forked
        self._known = anyio.Event()
        self._result: Worker | ShimdError
        self._abandoned = False

    def resolve(self, result: Worker | ShimdError) -> None:
        """Note what came of it; a worker that nobody waits for any more is ended."""
        self._result = result
        self._known.set()
        if isinstance(result, Worker) and self._is_forked:
            self.forks.forked(time.monotonic() - self._since)
        if self._abandoned and isinstance(result, Worker):
            result.abandon()

    async def worker(self) -> Worker:
        """:raises ShimdError: the fork failed, or the fork server is gone, or does not answer"""
        with step("fork"), anyio.move_on_after(_LONGEST_SHIELD, shield=True):
            await self._known.wait()
        if not self._known.is_set():
            self._abandoned = True
            raise Unavailable(f"the fork server has not answered within {_LONGEST_SHIELD:.0f} s")
        if isinstance(self._result, ShimdError):
            raise self._result
        return self._result

    async def enter(self, block: bytes, jail: Sequence[int], entries: int = 1, own: int = 0) -> Worker:
        """Have one of :meth:`ForkClient.spawn_early` run a program. The descriptors stay the caller's.

        :param block: for the engine's part in C
        :param jail: the system calls that lead to it, its descriptors, an application's, and the directories of
            compiled modules
        :param entries: how many of these
        :param own: how many of an application's
        :raises ShimdError: as :meth:`worker`, or the worker is gone
        """
        worker = await self.worker()
        worker.alone = True
        try:
            fd = memory_file("shimd-program", block)
            try:
                worker.send(Enter(entries, own), [fd, *jail])
            finally:
                os.close(fd)
        except BaseException:
            await self.forks.end(worker)
            raise
        return worker

    async def end(self) -> None:
        """End it: it is not wanted any more."""
        with suppress(ShimdError):
            await self.forks.end(await self.worker())


class ForkClient:
    """A connection to the fork server of one engine."""

    def __init__(
        self, sock: socket.socket | None, orphans: dict[str, Worker] | None = None, running: Container[str] = ()
    ) -> None:
        """
        :param sock: ``None``: that of one that is gone
        :param orphans: workers that were taken for some of a fork server that is gone, by their keys
        :param running: keys of an earlier supervisor's workers that were started
        """
        self._sock = sock
        self._running = running
        self._orphans = {} if orphans is None else orphans
        self.workers: dict[str, Worker] = {}
        self._pending: dict[str, PendingWorker] = {}
        self._listed = anyio.Event()
        self._greeted = anyio.Event()
        self._sending = anyio.Lock(fast_acquire=True)
        self._hello: Hello | None = None
        self._end = "the fork server is gone"
        self._pidfd: int | None = None
        self.refused = False
        """Whether it serves another supervisor."""
        self.forked: Callable[[float], None] = lambda _seconds: None
        """Told how long it took to make a worker."""
        self.heard = 0
        """How many messages it has sent."""
        self.closed = False
        self._witness: Witness | None = None
        if sock is None:
            self._close()
        else:
            self._witness = Witness(sock)
            sock.setblocking(False)
            with suppress(OSError):  # told by what is sent next
                send(sock, Hello(VERSION))

    async def hello(self) -> Hello:
        """The fork server's greeting, of whatever version; it answers once it has warmed up.

        :raises Unavailable: it is gone, or serves another supervisor
        """
        await self._greeted.wait()
        if self._hello is None or self.closed:
            raise Unavailable(self._end)
        return self._hello

    def take_pidfd(self) -> int | None:
        """The fork server's own, which comes with its greeting; it is the caller's then."""
        pidfd, self._pidfd = self._pidfd, None
        return pidfd

    async def spawn(
        self,
        key: str,
        plan: WorkerPlan,
        stdio: tuple[int, int, int],
        birthplace: Birthplace = ANYWHERE,
        jail: Sequence[int] = (),
        block: bytes | None = None,
        early: PendingWorker | None = None,
    ) -> Worker:
        """Fork a worker; the descriptors stay the caller's.

        :param jail: its system calls, the descriptors of its jail, and last the plan's ``view``, if it has one
        :param block: for a worker without Python (:mod:`.without_python`), which has system calls; Python
            will do if there is no zygote
        :param early: one of :meth:`spawn_early`, perhaps of another fork server: it is used if it can be, or ended
        :raises ShimdError: the fork failed, or the fork server is gone
        """
        if early is not None and (block is None or early.forks is not self):
            await early.end()
            early = None
        if block is not None:
            with suppress(Unimplemented):
                return await (early or await self.spawn_early(key, stdio, birthplace)).enter(block, jail)
        plan_fd = message_file("shimd-plan", plan)
        try:
            pending = await self._ask(Spawn(key, birthplace.pidns, birthplace.cgroup), [*stdio, plan_fd, *jail])
        finally:
            os.close(plan_fd)
        return await pending.worker()

    async def spawn_early(
        self, key: str, stdio: tuple[int, int, int], birthplace: Birthplace = ANYWHERE
    ) -> PendingWorker:
        """Ask for a worker without Python (:mod:`.without_python`), which waits until it is told what to run
        (:meth:`PendingWorker.enter`). It fails as ``Unimplemented`` if it takes Python here.

        :raises Unavailable: the fork server is gone
        """
        return await self._ask(Spawn(key, birthplace.pidns, birthplace.cgroup, python=False), stdio)

    async def follow(self, key: str, pid: int) -> Worker:
        """Learn of the exit of a process that a worker left behind, as of a worker's.

        :raises Internal: it left none of that number
        """
        return await (await self._ask(Follow(key, pid), ())).worker()

    async def _ask(self, request: Spawn | Follow, fds: Sequence[int]) -> PendingWorker:
        """Send a request that ``Spawned`` or ``Failed`` will answer."""
        pending = self._pending[request.key] = PendingWorker(self, is_forked=isinstance(request, Spawn))
        try:
            await self._send(request, fds)
        except BaseException:
            del self._pending[request.key]
            raise
        return pending

    async def forget(self, worker: Worker) -> None:
        """Drop the exit status of a worker that has exited; here and in the fork server."""
        self._drop(worker)
        with suppress(Unavailable):  # a fork server that died has forgotten already
            await self._send(Forget(worker.key))

    async def end(self, worker: Worker) -> None:
        """Kill a worker if it still lives, wait for its end and forget it, whoever cancels.

        One that the kernel does not let die (a read from a volume that does not answer) is forgotten when it has.
        """
        with anyio.move_on_after(_LONGEST_SHIELD, shield=True) as waiting:
            await self._kill(worker)
            await worker.exited.wait()
            with suppress(ShimdError):
                await self.forget(worker)
        if waiting.cancelled_caught and worker.status is None:
            worker.abandon()

    async def _kill(self, worker: Worker) -> None:
        while True:
            try:
                worker.signal(signal.SIGKILL)
                break
            except ProcessLookupError:
                break
            except OSError:  # until there is room for a descriptor of it
                await anyio.sleep(_SOON)

    def leave(self, worker: Worker) -> None:
        """Have the fork server kill a worker and forget it; it is not ours any more."""
        self._drop(worker)
        self._try_to_send(End(worker.key))

    async def adopt(self) -> list[Worker]:
        """After a reconnection: all workers that the fork server had and has not forgotten."""
        await self._send(List())
        await self._listed.wait()
        return [worker for worker in self.workers.values() if worker.adopted]

    async def retire(self) -> None:
        """Have it leave with its last worker."""
        await self._send(Retire())

    def ping(self) -> None:
        """Have it say that it lives, unless it has too much to answer as it is."""
        self._try_to_send(Ping())

    def hang_up(self) -> None:
        """End the connection; :meth:`run` does what follows from that."""
        if self._sock is not None:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    async def _send(self, request: Request, fds: Sequence[int] = ()) -> None:
        async with self._sending:
            while not self.closed:
                assert self._sock is not None
                try:
                    send(self._sock, request, fds)
                    return
                except BlockingIOError:
                    await anyio.wait_writable(self._sock)
                except ConnectionError:
                    break
                except OSError as error:  # for want of memory, or too many descriptors are under way
                    raise from_os(error) from error
        raise Unavailable(self._end)

    def _try_to_send(self, request: Request) -> None:
        """If it takes it at once: what it does not hear is no harm."""
        if self._sock is not None and not self.closed:
            with suppress(OSError):
                send(self._sock, request)

    async def run(self) -> None:
        """Dispatch the fork server's messages until the connection ends."""
        assert self._sock is not None and self._witness is not None
        try:
            while True:
                await self._witness.readable()
                try:
                    while (packet := receive(self._sock, decode_event)) is not None:
                        self._dispatch(*packet)
                    return
                except BlockingIOError:
                    continue
                except LostDescriptors as lost:
                    self._dispatch_without(lost)
                except (ConnectionError, NotAMessage):
                    return
                except OSError:  # for want of memory
                    await anyio.sleep(_SOON)
        finally:
            self._close()

    def _dispatch(self, event: Event, fds: list[int]) -> None:
        self.heard += 1
        match event:
            case Hello():
                self._hello = event
                self._pidfd = fds[0] if fds else None
                self._greeted.set()
            case Refused():
                self.refused, self._end = True, "the fork server serves another supervisor"
            case Spawned():
                self._spawned(event, fds)
            case Failed():
                self._reply(event.key, from_code(event.code, event.message))
            case Exited():
                self._exited(event)
            case Listed():
                self._listed.set()
            case Pong():
                pass
            case _:
                assert_never(event)

    def _dispatch_without(self, lost: LostDescriptors) -> None:
        """A message whose descriptors this process has no room for: a new worker is of no use then, and ended. One that
        runs goes on."""
        event = lost.message
        if isinstance(event, Spawned) and event.key in self._pending:
            self._try_to_send(End(event.key))
            self._reply(event.key, from_os(lost))
        else:
            self._dispatch(cast(Event, event), [])

    def _spawned(self, event: Spawned, fds: list[int]) -> None:
        key = event.key
        control = socket.socket(fileno=fds[0]) if fds else None
        pidfd = fds[1] if len(fds) > 1 else None
        if control is not None and key in self._running:  # it does not listen any more
            control.close()
            control = None
        if control is not None:
            control.setblocking(False)
        fresh = Worker(key, event.pid, event.start, control, self, pidfd, adopted=key not in self._pending)
        if key in self.workers:  # ours, and listed once more
            fresh.close()
        elif (orphan := self._known_orphan(key)) is not None:
            orphan.close_control()
            orphan.control, fresh.control = fresh.control, None
            fresh.close()
            if orphan.starts:
                with suppress(Unavailable):  # it does not listen any more
                    orphan.send(Start())
                orphan.close_control()
        else:
            self.workers[key] = fresh
            if pidfd is not None and self._witness is not None:
                fresh.witness = self._witness
                self._witness.watch(pidfd, fresh)
            self._reply(key, fresh)

    def _known_orphan(self, key: str) -> Worker | None:
        """One whose fork server was not gone but late: it is ours from now on."""
        orphan = self._orphans.pop(key, None)
        if orphan is not None:
            orphan.forks = self
            self.workers[key] = orphan
        return orphan

    def _exited(self, event: Exited) -> None:
        worker = self.workers.get(event.key) or self._known_orphan(event.key)
        if worker is None:  # it ended while no supervisor was connected
            worker = Worker(event.key, event.pid, event.start, None, self, adopted=True)
            self.workers[event.key] = worker
        if worker.status is None:
            worker.gone(event.status, event.at)
        if worker.unwanted:
            self._drop(worker)
            self._try_to_send(Forget(event.key))  # one exit that it keeps is no harm

    def _drop(self, worker: Worker) -> None:
        self.workers.pop(worker.key, None)
        worker.close()

    def _reply(self, key: str, result: Worker | ShimdError) -> None:
        pending = self._pending.pop(key, None)
        if pending is not None:
            pending.resolve(result)

    def _close(self) -> None:
        self.closed = True
        if self._witness is not None:
            self._witness.close()
        if self._sock is not None:
            self._sock.close()
        if (pidfd := self.take_pidfd()) is not None:
            os.close(pidfd)
        self._listed.set()
        self._greeted.set()
        for key in list(self._pending):
            self._reply(key, Unavailable(self._end))

    @property
    def living(self) -> list[Worker]:
        """Workers not known to have exited. After :meth:`run` has ended nobody reports them any more."""
        return [worker for worker in self.workers.values() if worker.status is None]


def connect(path: Path) -> socket.socket:
    """Connect to a fork server.

    :raises OSError: none listens there
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.connect(str(path))
    except BaseException:
        sock.close()
        raise
    return sock


def launch(engine: str, path: Path, *flags: str) -> tuple[socket.socket, int]:
    """Start a fork server that listens on ``path`` and outlives this process; returns a connection and its pid.

    The socket listens before the server has warmed up, so that connecting needs no retries.

    :raises OSError: it does not start
    """
    with _listening(path) as (listener, connection):
        fds = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, listener.fileno(), LISTEN_FD),
        ]
        pid = spawn(sys.executable, _command(engine, flags), environment(), fds, session=True)
    return connection, pid


async def launch_by(spawn: Spawner, engine: str, path: Path) -> tuple[socket.socket, int]:
    """The same as another process's child.

    :raises OSError: it does not start
    :raises ShimdError: what ``spawn`` raises
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        with _listening(path) as (listener, connection):
            fds = {0: null, 1: null, 2: 2, LISTEN_FD: listener.fileno()}
            pid = await spawn(_command(engine), environment(), fds)
    finally:
        os.close(null)
    return connection, pid


@contextmanager
def _listening(path: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket for a fork server, until it has it, and a connection to it, until it fails."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        try:
            path.chmod(0o600)
            listener.listen(8)
            connection = connect(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        try:
            yield listener, connection
        except BaseException:
            connection.close()
            path.unlink(missing_ok=True)
            raise


def _command(engine: str, flags: Sequence[str] = ()) -> list[str]:
    words = ["-I", "-m", "shimd.forkserver.main", engine_reference(engine), installed_version(engine), *flags]
    return [sys.executable, *words]


def environment() -> dict[str, str]:
    """A guest may be able to read /proc/self/environ: nothing of the node's own belongs there."""
    return {name: value for name, value in os.environ.items() if name.startswith("SHIMD_") or name in ("PATH", "LANG")}
