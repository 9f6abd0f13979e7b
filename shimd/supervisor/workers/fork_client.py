"""The supervisor's side of the fork server: start it if none runs, spawn workers, learn of their exits.

Only this module and ``forkserver.py`` speak the protocol of ``messages.py``.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from shimd.engines.registry import engine_reference
from shimd.errors import ShimdError, Unavailable, Unimplemented, from_code
from shimd.linux.memory_file import memory_file
from shimd.protocol.messages import LISTEN_FD, Message, Plan, plan_file, receive, send


class HandedOver(Exception):
    """A worker found that its program is another engine's, for which its compiled form is the same."""

    def __init__(self, engine: str, artifact: str | None) -> None:
        self.engine, self.artifact = engine, artifact


@dataclass(eq=False)
class Worker:
    """One forked process, until :meth:`Forks.forget`."""

    key: str
    pid: int
    start: int
    """Start time in clock ticks since boot; with the pid it names the process for good."""
    control: socket.socket
    forks: "Forks"
    """The connection to the fork server that it is a child of."""
    handled: frozenset[int] = frozenset()
    """Signals that its app handles itself."""
    status: int | None = None
    """The wait status (``os.waitstatus_to_exitcode`` reads it), once it has exited."""
    exited_at: int = 0
    """Nanoseconds since the epoch."""
    adopted: bool = False
    """Spawned by an earlier supervisor."""
    alone: bool = False
    """Whether its app is one process, whatever it does."""
    exited: anyio.Event = field(default_factory=anyio.Event)

    async def receive(self) -> tuple[Message, list[int]] | None:
        """The next message with its descriptors, which the caller owns; ``None`` when the worker is gone."""
        while True:
            await anyio.wait_readable(self.control)
            try:
                return receive(self.control)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                return None

    def send(self, message: Message, fds: list[int] | None = None) -> None:
        """:raises Unavailable: the worker is gone"""
        try:
            send(self.control, message, fds)
        except OSError as error:
            raise Unavailable("the worker process is gone") from error

    def signal(self, number: int) -> None:
        """:raises ProcessLookupError: it has exited"""
        if self.status is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    async def becomes_another(self) -> None:
        """Wait until it has become another program.

        :raises ShimdError: it says why it could not
        """
        packet = await self.receive()
        if packet is not None:
            message, fds = packet
            for fd in fds:
                os.close(fd)
            raise from_code(message["code"], message["message"])

    def gone(self, status: int, at: int) -> None:
        """Note the exit. What the worker said before it is still there to :meth:`receive`."""
        self.status, self.exited_at = status, at
        self.exited.set()


class Coming:
    """A worker that was asked for. It may exist from then on, so that its owner must learn of it, whoever cancels."""

    def __init__(self, forks: "Forks") -> None:
        self.forks = forks
        self._known = anyio.Event()
        self._result: Worker | ShimdError

    def has_come(self, result: Worker | ShimdError) -> None:
        self._result = result
        self._known.set()

    async def worker(self) -> Worker:
        """:raises ShimdError: the fork failed, or the fork server is gone"""
        with anyio.CancelScope(shield=True):
            await self._known.wait()
        if isinstance(self._result, ShimdError):
            raise self._result
        return self._result

    async def entered(self, block: bytes, jail: Sequence[int]) -> Worker:
        """One of :meth:`Forks.begin`, told what to run, and where. The descriptors stay the caller's.

        :param block: for the engine's part in C
        :param jail: the steps to it, and its descriptors
        :raises ShimdError: as :meth:`worker`, or the worker is gone
        """
        worker = await self.worker()
        worker.alone = True
        try:
            fd = memory_file("shimd-program", block)
            try:
                worker.send({"op": "enter"}, [fd, *jail])
            finally:
                os.close(fd)
        except BaseException:
            await self.forks.end(worker)
            raise
        return worker

    async def end(self) -> None:
        """It is not wanted any more."""
        with suppress(ShimdError):
            await self.forks.end(await self.worker())


class Forks:
    """A connection to the fork server of one engine."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._workers: dict[str, Worker] = {}
        self._coming: dict[str, Coming] = {}
        self._listed = anyio.Event()
        self._sending = anyio.Lock(fast_acquire=True)
        self.closed = False

    async def spawn(
        self,
        key: str,
        plan: Plan,
        stdio: tuple[int, int, int],
        jail: Sequence[int] = (),
        block: bytes | None = None,
        begun: Coming | None = None,
    ) -> Worker:
        """Fork a worker; the descriptors stay the caller's.

        :param jail: of a container: its steps, and the descriptors of its jail
        :param block: for a worker without Python (:mod:`.without_python`), which has steps; Python will
            do if there is no zygote
        :param begun: one of :meth:`begin`, perhaps of another fork server: it is taken if it can be, or ended
        :raises ShimdError: the fork failed, or the fork server is gone
        """
        if begun is not None and (block is None or begun.forks is not self):
            await begun.end()
            begun = None
        if block is not None:
            with suppress(Unimplemented):
                return await (begun or await self.begin(key, plan, stdio)).entered(block, jail)
        plan_fd = plan_file(plan)
        try:
            coming = await self._ask(_spawn(key, plan), [*stdio, plan_fd, *jail])
        finally:
            os.close(plan_fd)
        return await coming.worker()

    async def begin(self, key: str, plan: Plan, stdio: tuple[int, int, int]) -> Coming:
        """Ask for a worker without Python (:mod:`.without_python`), which waits until it has :meth:`Coming.entered`. It
        fails as ``Unimplemented`` if it takes Python here.

        :param plan: of it, pid namespace and cgroup
        :raises Unavailable: the fork server is gone
        """
        return await self._ask(_spawn(key, plan), list(stdio))

    async def follow(self, key: str, pid: int) -> Worker:
        """Learn of the exit of a process that a worker left behind, as of a worker's.

        :raises Internal: it left none of that number
        """
        return await (await self._ask({"op": "follow", "key": key, "pid": pid}, [])).worker()

    async def _ask(self, message: Message, fds: list[int]) -> Coming:
        """Send a request that ``spawned`` or ``failed`` will answer."""
        key = message["key"]
        coming = self._coming[key] = Coming(self)
        try:
            await self._send(message, fds)
        except BaseException:
            del self._coming[key]
            raise
        return coming

    async def forget(self, worker: Worker) -> None:
        """Drop the exit status of a worker that has exited; here and in the fork server."""
        self._workers.pop(worker.key, None)
        worker.control.close()
        if not self.closed:
            await self._send({"op": "forget", "key": worker.key}, [])

    async def end(self, worker: Worker) -> None:
        """Kill a worker if it still lives, wait for its end and forget it, whoever cancels."""
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                worker.signal(signal.SIGKILL)
            await worker.exited.wait()
            with suppress(ShimdError):  # a fork server that died has forgotten already
                await self.forget(worker)

    async def adopt(self) -> list[Worker]:
        """After a reconnection: all workers that the fork server had and has not forgotten."""
        await self._send({"op": "list"}, [])
        await self._listed.wait()
        return [worker for worker in self._workers.values() if worker.adopted]

    async def _send(self, message: Message, fds: list[int]) -> None:
        async with self._sending:
            while not self.closed:
                try:
                    send(self._sock, message, fds)
                    return
                except BlockingIOError:
                    await anyio.wait_writable(self._sock)
                except OSError:
                    break
        raise Unavailable("the fork server is gone")

    async def run(self) -> None:
        """Dispatch the fork server's messages until the connection ends."""
        try:
            while True:
                await anyio.wait_readable(self._sock)
                try:
                    while (packet := receive(self._sock)) is not None:
                        self._dispatch(*packet)
                    return
                except BlockingIOError:
                    continue
                except ConnectionResetError:
                    return
        finally:
            self._close()

    def _dispatch(self, message: Message, fds: list[int]) -> None:
        match message["ev"]:
            case "spawned":
                self._spawned(message, fds[0])
            case "failed":
                self._reply(message["key"], from_code(message["code"], message["message"]))
            case "exited":
                self._exited(message)
            case "listed":
                self._listed.set()

    def _spawned(self, message: Message, fd: int) -> None:
        control = socket.socket(fileno=fd)
        control.setblocking(False)
        key = message["key"]
        if key in self._workers:  # ours, and listed once more
            control.close()
            return
        worker = Worker(key, message["pid"], message["start"], control, self, adopted=key not in self._coming)
        self._workers[key] = worker
        self._reply(key, worker)

    def _exited(self, message: Message) -> None:
        key = message["key"]
        worker = self._workers.get(key)
        if worker is None:  # it ended while no supervisor was connected
            worker = self._workers[key] = Worker(key, message["pid"], 0, socket.socket(), self, adopted=True)
        if worker.status is None:
            worker.gone(message["status"], message["at"])

    def _reply(self, key: str, result: Worker | ShimdError) -> None:
        coming = self._coming.pop(key, None)
        if coming is not None:
            coming.has_come(result)

    def _close(self) -> None:
        self.closed = True
        self._sock.close()
        self._listed.set()
        for key in list(self._coming):
            self._reply(key, Unavailable("the fork server is gone"))

    @property
    def orphans(self) -> list[Worker]:
        """Workers not known to have exited: after :meth:`run` has ended nobody reports them any more."""
        return [worker for worker in self._workers.values() if worker.status is None]


def _spawn(key: str, plan: Plan) -> Message:
    return {"op": "spawn", "key": key, "pidns": plan.get("pidns"), "cgroup": plan.get("unified")}


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
    """
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(8)
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-m", "shimd.forkserver.main", engine_reference(engine), *flags],
            environment(),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                (os.POSIX_SPAWN_DUP2, 0, 1),
                (os.POSIX_SPAWN_DUP2, listener.fileno(), LISTEN_FD),
            ],
            setsid=True,
        )
        return connect(path), pid


def environment() -> dict[str, str]:
    """A guest may be able to read /proc/self/environ: nothing of the node's own belongs there."""
    return {name: value for name, value in os.environ.items() if name.startswith("SHIMD_") or name in ("PATH", "LANG")}


@asynccontextmanager
async def private_forks(engine: str, directory: Path) -> AsyncIterator[Forks]:
    """A fork server of one's own, for as long as the context or this process lasts (``shimd run``)."""
    sock, pid = launch(engine, directory / "worker.sock", "private")
    forks = Forks(sock)
    reading = anyio.CancelScope(shield=True)  # whoever is cancelled ends its workers, and has to learn of their ends

    async def read() -> None:
        with reading:
            await forks.run()
            for worker in forks.orphans:  # they end with it (steps.of_host)
                worker.gone(signal.SIGKILL, time.time_ns())

    error: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        try:
            yield forks
        except (ShimdError, HandedOver) as caught:  # raised outside, since a task group would wrap it
            error = caught
        finally:
            reading.cancel()
            _end(pid)
    if error is not None:
        raise error


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
