"""The daemon around a container, in memory: no jailer, no fork server, no cgroup, and processes that only sleep.

What is real is the protocol: a fork server's client speaks with a task of the test's over a socket pair, as each worker
does. Whatever the container awaits goes by a *point*, at which a test can have it fail, or have the caller cancelled.
"""

import asyncio
import copy
import math
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.abc
from anyio._backends._asyncio import _task_states  # what asyncio's own tasks are to anyio
from betterproto2 import Message

from shimd.errors import Code, NotFound, Unavailable
from shimd.formats.magic import NativeProgram
from shimd.linux.memory_file import read_file
from shimd.linux.pidfd import start_time
from shimd.protocol.codec import Decoder, NotAMessage
from shimd.protocol.fork_server import (
    Exited,
    Failed,
    Follow,
    Forget,
    Hello,
    List,
    Listed,
    Spawn,
    Spawned,
    decode_request,
)
from shimd.protocol.journal import ProcessRecord, TaskRecord
from shimd.protocol.packets import read_message, receive, send
from shimd.protocol.plans import HookCommand, JailPlan, NativeCommand, WorkerPlan, decode_worker_plan
from shimd.protocol.worker import (
    AskImage,
    AskProgram,
    Enter,
    Error,
    HandsOver,
    OtherEngine,
    Ready,
    Start,
    decode_answer,
    decode_order,
)
from shimd.supervisor.background import Background
from shimd.supervisor.workers.fork_client import ForkClient, Worker
from shimd.supervisor.workers.jailers import During, Jail
from shimd.supervisor.workers.programs import Image, Program
from tests.unit.supervisor.recovery.kept import KeptInMemory


class Points:
    """Counts what is awaited; at the chosen one it fails, or cancels."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self._at = 0
        self._how: Callable[[], None] | None = None

    def arm(self, number: int, how: Callable[[], None] | None) -> None:
        """From now on, at the ``number``-th point (from 1) do that."""
        self.passed.clear()
        self._at, self._how = number, how

    @property
    def reached(self) -> bool:
        return self._how is not None and len(self.passed) >= self._at

    def act(self, name: str) -> None:
        """One that is no await by itself; in whatever thread."""
        self.passed.append(name)
        if self._how is not None and len(self.passed) == self._at:
            self._how()

    async def at(self, name: str) -> None:
        self.act(name)
        await anyio.lowlevel.checkpoint()


class MemoryCgroup:
    """What a container asks of its cgroup."""

    def __init__(self, points: Points, *, systemd: bool) -> None:
        self._points = points
        self.directories: list[str] = []
        self.unified = None
        self.scope = "a scope" if systemd else None
        self.asks_systemd = systemd
        self.made, self.frozen = False, False
        self.earlier: MemoryCgroup | None = None
        self.processes: set[int] = set()
        self.fails: set[str] = set()
        """Names of methods that raise."""

    def _act(self, name: str) -> None:
        self._points.act(f"cgroup.{name}")
        if name in self.fails:
            raise OSError(5, "Input/output error")

    def make(self, resources: dict[str, Any]) -> None:
        self._act("make")
        self.made = True

    def find(self, *, scope: bool) -> None:
        """The one of that path, which another daemon had."""
        if self.earlier is not None:
            self.made, self.frozen = self.earlier.made, self.earlier.frozen
            self.earlier.made = self.earlier.frozen = False

    def has_processes(self) -> None:
        self._act("has_processes")

    def freeze(self) -> None:
        """As the worst: what fails may have been done."""
        self.frozen = True
        self._act("freeze")

    def thaw(self) -> None:
        self._act("thaw")
        self.frozen = False

    def apply(self, resources: dict[str, Any]) -> None:
        self._act("apply")

    def pids(self) -> list[int]:
        return sorted(self.processes)

    def remove_at_once(self) -> bool:
        if "remove" in self.fails:
            return False
        self.made = False
        return True

    def remove(self) -> None:
        self._act("remove")
        self.made = False

    def kill(self) -> None:
        self._act("kill")

    def give_up(self) -> None:
        self._act("give_up")

    def oom_count(self) -> int:
        return 0

    async def oom_kills(self) -> AsyncIterator[int]:
        await anyio.sleep_forever()
        yield 0


class Daemon:
    """:class:`shimd.supervisor.task.context.Context` in memory."""

    #: One whose programs take Python.
    engine = "wasi-sockets"
    namespace = "default"
    events_address = grpc_address = ""
    alive = True

    def __init__(self, tasks: anyio.abc.TaskGroup, directory: Path) -> None:
        self.records: dict[str, TaskRecord] = {}
        """The last one of each container."""
        self.keeper = KeptInMemory()
        self._claimed: set[str] = set()
        self.tasks, self.group = Background(tasks), tasks
        self.points = Points()
        self.published: list[Message] = []
        self.cgroups: list[MemoryCgroup] = []
        self.jails = 0
        """That are open."""
        self.asked_forks: list[str] = []
        self.compiled_for: list[str] = []
        """Engines whose fork server was asked for."""
        self.discarded: list[Path] = []
        self.systemd = False
        """Whether it makes the cgroups."""
        self.is_native = False
        """Whether programs are none for an engine."""
        self.runner = ""
        """What the compile worker noted of programs."""
        self._directory = directory
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._client = ForkClient(ours)
        self.fork_server = ForkServer(theirs, tasks)
        tasks.start_soon(self._client.run)
        tasks.start_soon(self.fork_server.serve)

    def cgroup(self, path: str, *, systemd: bool) -> Any:
        made = MemoryCgroup(self.points, systemd=self.systemd)
        made.earlier = self.cgroups[-1] if self.cgroups else None
        self.cgroups.append(made)
        return made

    async def forks(self, engine: str | None = None) -> ForkClient:
        self.asked_forks.append(engine or self.engine)
        await self.points.at("forks")
        return self._client

    async def jail(self, plan: JailPlan, terminal: int | None, during: During) -> Jail:
        await self.points.at("jail is begun")
        await during()
        await self.points.at("jail")
        self.jails += 1
        return _Jail(self)

    async def program(self, container: str, name: str, fd: int | None, digest: str = "", engine: str = "") -> Program:
        await self.points.at("program")
        self.compiled_for.append(engine or self.engine)
        if self.is_native:
            raise NativeProgram("/bin/true")
        return Program(self._directory / "artifact", self.runner)

    async def image(self, container: str, engine: str = "") -> Image:
        raise NotFound("there are no images here")

    def view(self, artifact: Path) -> int:
        return os.open(artifact.parent, os.O_PATH)

    async def discard(self, artifact: Path) -> None:
        self.discarded.append(artifact)

    def commit(self, record: TaskRecord, event: Message | None = None, *, required: bool = False) -> None:
        if required:
            self.points.act("journal")
        if self.alive:
            self.records[record.id] = record
            if event is not None:
                self.published.append(event)

    def forget(self, record: TaskRecord) -> None:
        if self.alive:
            self.records.pop(record.id, None)

    @property
    def kept(self) -> dict[str, list[int]]:
        return self.keeper.kept

    def keep(self, name: str, fds: Sequence[int]) -> None:
        if self.alive:
            self.keeper.keep(name, fds)

    def keep_soon(self, name: str, fds: Sequence[int]) -> None:
        if self.alive:
            self.keeper.keep_soon(name, fds)

    async def hold(self, name: str, inputs: Sequence[int], outputs: Sequence[int]) -> bool:
        return not self.alive or await self.keeper.hold(name, inputs, outputs)

    def held(self, name: str, fds: Sequence[int]) -> None:
        pass

    def drop(self, name: str) -> None:
        if self.alive:
            self.keeper.drop(name)

    def successor(self) -> "Daemon":
        """The next one, after the sudden death of this: what it still does has no effect on what was recorded."""
        other = copy.copy(self)
        other.records, other.jails = dict(self.records), 0
        self.alive = False
        return other

    def worker(self, record: ProcessRecord) -> Worker:
        """:meth:`shimd.supervisor.task.container.Earlier.worker`."""
        worker = self._client.workers[record.key]
        self._claimed.add(record.key)
        return worker

    def take(self, name: str) -> list[int] | None:
        return self.keeper.take(name)

    def end_unclaimed(self) -> None:
        for key, worker in list(self._client.workers.items()):
            if key not in self._claimed and worker.status is None:
                worker.abandon()

    @property
    def events(self) -> list[str]:
        """What was published, by kind."""
        return [type(event).__name__ for event in self.published]


class _Jail(Jail):
    def __init__(self, daemon: Daemon) -> None:
        super().__init__(_file(), [_file()], _file(), "/app.wasm", "", "", [])
        self._daemon = daemon

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._daemon.jails -= 1


def _file() -> int:
    return os.memfd_create("test")


class ForkServer:
    """The other end of a fork server's socket: its workers sleep."""

    def __init__(self, sock: socket.socket, tasks: anyio.abc.TaskGroup) -> None:
        sock.setblocking(False)
        self._sock, self._tasks = sock, tasks
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.started: list[str] = []
        """Keys of workers that were told to start."""
        self.fails = False
        """Whether it forks no more."""
        self.followed: list[int] = []
        """Processes that runtimes have left behind."""
        self._controls: list[socket.socket] = []
        self.says: list[list[object]] = []
        """Of each worker to come, what it says; all others are ready."""
        self.answers: list[object] = []
        """What workers were answered."""
        self.plans: list[WorkerPlan] = []
        """Of workers with Python."""
        self.entered: list[tuple[int, int, list[bytes]]] = []
        """What those without were told to enter: how many directories, how many of their own, and all contents."""
        self.packs: list[int] = []
        """The descriptors that come with :class:`HandsOver`."""
        self.has_zygote = True

    async def serve(self) -> None:
        send(self._sock, Hello(0))
        try:
            while True:
                await anyio.wait_readable(self._sock)
                packet = receive(self._sock, decode_request)
                if packet is None:
                    return
                request, fds = packet
                match request:
                    case Spawn():
                        self._spawn(request, fds)
                    case Follow():
                        self._follow(request)
                    case Forget():
                        self.processes.pop(request.key, None)
                    case List():
                        send(self._sock, Listed())
                for fd in fds:
                    os.close(fd)
        finally:
            self._sock.close()

    def _spawn(self, request: Spawn, fds: list[int]) -> None:
        key = request.key
        if self.fails:
            send(self._sock, Failed(key, Code.RESOURCE_EXHAUSTED, "fork: resource temporarily unavailable"))
            return
        if not (request.python or self.has_zygote):
            send(self._sock, Failed(key, Code.UNIMPLEMENTED, "fork: function not implemented"))
            return
        plan = read_message(fds[3], decode_worker_plan) if request.python else None
        if plan is not None:
            self.plans.append(plan)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        becomes = isinstance(plan, HookCommand | NativeCommand)
        process = self.processes[key] = _process(plan, fds)
        send(self._sock, Spawned(key, process.pid, start_time(process.pid)), [theirs.fileno()])
        theirs.close()
        ours.setblocking(False)
        if becomes:
            ours.close()
        else:
            self._controls.append(ours)
            self._tasks.start_soon(self._work, key, ours, plan is None)
        self._tasks.start_soon(self._reap, key, process)

    def _follow(self, request: Follow) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        send(self._sock, Spawned(request.key, request.pid, start_time(request.pid)), [theirs.fileno()])
        ours.close()
        theirs.close()
        self.followed.append(request.pid)
        self._tasks.start_soon(self._watch, request.key, request.pid)

    async def _watch(self, key: str, pid: int) -> None:
        """Not a child of ours: it is told as killed."""
        pidfd = os.pidfd_open(pid)
        try:
            await anyio.wait_readable(pidfd)
        finally:
            os.close(pidfd)
        self.followed.remove(pid)
        with suppress(OSError):
            send(self._sock, Exited(key, pid, signal.SIGKILL, time.time_ns()))

    async def _work(self, key: str, control: socket.socket, enters: bool) -> None:
        """As a worker does: it is ready, and waits for its start."""
        with control:
            if enters and not await self._enter(control):
                return
            for message in self.says.pop(0) if self.says else [Ready()]:
                with suppress(OSError):
                    send(control, message, self.packs if isinstance(message, HandsOver) else ())
                if isinstance(message, AskProgram | AskImage):
                    await anyio.wait_readable(control)
                    answer = receive(control, decode_answer)
                    self.answers.append(answer and answer[0])
                if isinstance(message, Error | OtherEngine | HandsOver):
                    self.processes[key].kill()
                    return
            await anyio.wait_readable(control)
            with suppress(OSError, NotAMessage):
                packet = receive(control, decode_order)
                if packet is not None and isinstance(packet[0], Start):
                    self.started.append(key)

    async def _enter(self, control: socket.socket) -> bool:
        """As one without Python does, before all else; returns whether it is wanted."""
        await anyio.wait_readable(control)
        packet = receive(control, _decode_enter)
        if packet is None:
            return False
        message, fds = packet
        self.entered.append(
            (message.entries, message.own, [read_file(fd) for fd in fds if not stat.S_ISDIR(os.fstat(fd).st_mode)])
        )
        for fd in fds:
            os.close(fd)
        return True

    async def _reap(self, key: str, process: "subprocess.Popen[bytes]") -> None:
        pidfd = os.pidfd_open(process.pid)
        try:
            await anyio.wait_readable(pidfd)
        finally:
            os.close(pidfd)
        _pid, status = os.waitpid(process.pid, 0)  # noqa: ASYNC222 — it has ended
        process.returncode = 0
        with suppress(OSError):
            send(self._sock, Exited(key, process.pid, status, time.time_ns()))

    def hang_up(self) -> None:
        """Close all workers' connections, as their deaths do."""
        for control in self._controls:
            control.shutdown(socket.SHUT_RDWR)

    @property
    def living(self) -> Sequence[int]:
        return [process.pid for process in self.processes.values() if process.returncode is None]


_decode_enter = Decoder[Enter](Enter)


def _process(plan: WorkerPlan | None, fds: list[int]) -> "subprocess.Popen[bytes]":
    """What a worker becomes, or sleeps in its stead."""
    match plan:
        case HookCommand():
            words, env = plan.hook.get("args") or [plan.hook["path"]], plan.hook.get("env") or []
            given = dict(item.split("=", 1) for item in env)
            return subprocess.Popen(
                words, executable=plan.hook["path"], env=given, stdin=fds[0], stdout=fds[1], stderr=fds[2]
            )
        case NativeCommand():
            return subprocess.Popen([*plan.command], cwd=plan.bundle, stdin=fds[0], stdout=fds[1], stderr=fds[2])
        case _:
            return subprocess.Popen(["sleep", "600"], stdin=fds[0], stdout=fds[1], stderr=fds[2])


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Daemon]:
    """A daemon of a test's own, whose processes end with it."""
    async with anyio.create_task_group() as tasks:
        daemon = Daemon(tasks, directory)
        try:
            yield daemon
        finally:
            for pid in daemon.fork_server.living:
                os.kill(pid, signal.SIGKILL)
            with anyio.move_on_after(10, shield=True):
                while daemon.fork_server.living:  # noqa: ASYNC110 — no event tells of it
                    await anyio.sleep(0.001)
            tasks.cancel_scope.cancel()
    assert not daemon.keeper.faults


class UntilDeath:
    """Awaits something in a task of its own, and never goes on with it when it stands still for the ``number``-th time
    (from 1), as if the process had been killed there."""

    _dead: ClassVar[list[Coroutine[Any, Any, Any]]] = []
    """Whatever they would do when they are collected must not be done."""

    def __init__(self, awaited: Coroutine[Any, Any, Any], number: int) -> None:
        self._awaited, self._number = awaited, number
        self.died = False
        self._over = anyio.Event()

    async def run(self) -> bool:
        """Returns whether it died."""
        # Not in a task group: it would wait for its end, and who died inside of a shield does not hear of the group's.
        self._task = asyncio.get_running_loop().create_task(self._run())
        await self._over.wait()
        return self.died

    async def _run(self) -> None:
        await self
        self._over.set()

    def __await__(self) -> Generator[Any, Any, Any]:
        for _ in range(self._number - 1):
            try:
                future = self._awaited.send(None)
            except StopIteration:
                return
            yield future
        self._dead.append(self._awaited)
        scope = _task_states[self._task].cancel_scope if self._task in _task_states else None
        while scope is not None:  # the dead keep no deadlines
            scope.deadline, scope = math.inf, scope._parent_scope
        self.died = True
        self._over.set()
        yield from asyncio.get_running_loop().create_future()


class Suspensions:
    """Awaits something, and acts when it stands still for the ``number``-th time (from 1), wherever that is."""

    def __init__(self, awaited: Coroutine[Any, Any, Any], number: int, how: Callable[[], None]) -> None:
        self._awaited, self._number, self._how = awaited, number, how
        self.passed = 0

    @property
    def reached(self) -> bool:
        return self.passed >= self._number

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[], Any] = partial(self._awaited.send, None)
        while True:
            try:
                future = resume()
            except StopIteration as done:
                return done.value
            self.passed += 1
            if self.passed == self._number:
                self._how()
            try:
                resume = partial(self._awaited.send, (yield future))
            except BaseException as error:
                resume = partial(self._awaited.throw, error)


def fails() -> None:
    """An error of a part that does not answer."""
    raise Unavailable("a part does not answer")


def cancelling(caller: anyio.CancelScope) -> Callable[[], None]:
    """Cancels whoever is in that scope, in whatever thread it is called."""
    loop, token = threading.get_ident(), anyio.lowlevel.current_token()

    def cancel() -> None:
        if threading.get_ident() == loop:
            caller.cancel()
        else:
            anyio.from_thread.run_sync(caller.cancel, token=token)

    return cancel
