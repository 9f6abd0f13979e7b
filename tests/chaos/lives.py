"""Leads the lives of a plan: one container each, from Create to Delete, and what is asked of it meanwhile."""

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import anyio
import httpx
from grpclib.exceptions import GRPCError

from tests.chaos import wire
from tests.chaos.auditor import words_of
from tests.chaos.place import Answer, Place, now
from tests.chaos.plan import SERVERS, Life, Step
from tests.chaos.record import Attempt, Call
from tests.e2e.http_app import free_port

#: How often what may be asked for again is asked for again, and the seconds between.
ATTEMPTS, PAUSE = 8, 0.5
SIGKILL = 9


class Streams:
    """The FIFOs of one process, or its log, in a directory of its own."""

    def __init__(self, place: Place, name: str, logs: str, terminal: bool) -> None:
        directory = place.directory / "streams" / name
        directory.mkdir(parents=True)
        self._log = directory / "log"
        self.stdin = self.stdout = self.stderr = ""
        self._input = self._fd = -1
        self.output = b""
        self.stalled = False
        if logs == "file":
            self.stdout = self.stderr = f"file://{self._log}"
        elif logs == "program":
            self.stdout = self.stderr = f"binary://{place.guest}?log={self._log}"
        else:
            self.stdin, self.stdout = str(directory / "in"), str(directory / "out")
            self.stderr = "" if terminal else self.stdout
            for name in (self.stdin, self.stdout):
                os.mkfifo(name)
            self._input, self._fd = (os.open(it, os.O_RDWR | os.O_NONBLOCK) for it in (self.stdin, self.stdout))

    async def read(self) -> None:
        """For ever: nobody but us may see the end of a FIFO, as our own end of it is open for writing, too."""
        while self._fd >= 0:
            await anyio.wait_readable(self._fd)
            if self.stalled:
                await anyio.sleep(0.05)
            else:
                self._take()

    def _take(self) -> None:
        with suppress(BlockingIOError):
            while data := os.read(self._fd, 1 << 16):
                self.output += data

    def write(self, data: bytes) -> None:
        os.write(self._input, data)

    def end_input(self) -> None:
        if self._input >= 0:
            os.close(self._input)
            self._input = -1

    def close(self) -> bytes:
        """What was written, all of it."""
        if self._fd >= 0:
            self._take()
            os.close(self._fd)
            self._fd = -1
        elif self._log.exists():
            self.output = self._log.read_bytes()
        self.end_input()
        return self.output


@dataclass
class Running:
    """A container that leads its life."""

    place: Place
    life: Life
    id: str
    streams: Streams
    port: int
    asked: int = 0
    """How often anything was asked that changes it: a look is right only if that is as it was."""
    state: str = ""
    """RUNNING, PAUSED or STOPPED once that is sure; empty while it changes."""
    pid: int = 0
    over: anyio.Event = field(default_factory=anyio.Event)
    _turn: anyio.Lock = field(default_factory=anyio.Lock)

    def step(self, what: str) -> str:
        return f"life {self.life.number}, {what}"

    async def call(
        self, method: str, made: Callable[[], Awaitable[Answer]], step: str = "", exec_id: str = "", **known: int
    ) -> Answer | None:
        return await self.place.call(self.id, exec_id, method, self.step(step or method), made, **known)

    @contextmanager
    def changing(self) -> Iterator[None]:
        self.asked += 1
        state, self.state = self.state, ""
        try:
            yield
        finally:
            self.state = self.state or state

    async def create(self) -> bool:
        """Create and Start; False: one of them failed, and nothing is left."""
        place, life, streams = self.place, self.life, self.streams
        await place.make(self.id, life.engine, life.app.arguments, life.terminal, self.port)
        request = wire.Create(
            container_id=self.id,
            rootfs=place.rootfs(life.engine, self.id),
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            terminal=life.terminal,
        )
        made = await self.call("Create", lambda: place.tasks.create(request))
        if made is None:
            return False
        self.pid = made.pid
        return True

    async def start(self) -> bool:
        return await self.call("Start", lambda: self.place.tasks.start(wire.Which(container_id=self.id))) is not None

    async def delete(self, exec_id: str = "") -> bool:
        """Asked again while there is an answer that says why not."""
        which = wire.Which(container_id=self.id, exec_id=exec_id)
        for _ in range(ATTEMPTS):
            if await self.call("Delete", lambda: self.place.tasks.delete(which), exec_id=exec_id) is not None:
                return True
            if self.place.record.calls[-1].error == "NOT_FOUND":
                return False
            await anyio.sleep(PAUSE)
        return False

    async def wait(self, exec_id: str, over: anyio.Event) -> None:
        """The answer to Wait is what ends a life; without one (it is a finding) it ends nevertheless."""
        which = wire.Which(container_id=self.id, exec_id=exec_id)
        patience = self.place.patience + max(self.life.app.seconds if self.life.end == 0 else 0, self.life.end_at)
        await self.place.call(
            self.id, exec_id, "Wait", self.step("Wait"), lambda: self.place.tasks.wait(which), patience
        )
        over.set()

    async def kill(self, signal: int, exec_id: str = "") -> bool:
        request = wire.Kill(container_id=self.id, exec_id=exec_id, signal=signal)
        for _ in range(ATTEMPTS):
            done = await self.call("Kill", lambda: self.place.tasks.kill(request), exec_id=exec_id, signal=signal)
            if done is not None:
                return True
            if self.over.is_set() or self.place.record.calls[-1].error == "NOT_FOUND":
                return False
            await anyio.sleep(PAUSE)
        return False

    async def lead(self) -> None:
        """From Start's answer to the exit."""
        self.state = "RUNNING"
        async with anyio.create_task_group() as tasks:
            for index, step in enumerate(self.life.steps):
                tasks.start_soon(self._take_step, index, step)
            if self.life.end:
                tasks.start_soon(self._end)
            await self.over.wait()
            self.asked += 1
            self.state = "STOPPED"

    async def _end(self) -> None:
        await self._sleep(self.life.end_at)
        if self.life.engine in SERVERS:  # the end of one that is not there yet is another
            await self._serves()
        async with self._turn:
            if not self.over.is_set():
                with self.changing():
                    await self.kill(self.life.end)
                    await self.over.wait()

    async def _sleep(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self.over.wait()

    async def _take_step(self, index: int, step: Step) -> None:
        await self._sleep(step.at)
        if self.over.is_set():
            return
        if step.do in ("get", "stall", "write"):
            await getattr(self, f"_{step.do}")(index, step)
        elif step.do == "exec":
            await self._exec(index, step)
        else:
            async with self._turn:
                if not self.over.is_set():
                    await getattr(self, f"_{step.do}")(index, step)

    async def _state(self, index: int, step: Step) -> None:
        await self.call("Get", lambda: self.place.tasks.get(wire.Which(container_id=self.id)), f"step {index}")

    async def _metrics(self, index: int, step: Step) -> None:
        request = wire.Filters(filters=[f"id=={self.id}"])
        await self.call("Metrics", lambda: self.place.tasks.metrics(request), f"step {index}")

    async def _pids(self, index: int, step: Step) -> None:
        await self.call("ListPids", lambda: self.place.tasks.pids(wire.Which(container_id=self.id)), f"step {index}")

    async def _resize(self, index: int, step: Step) -> None:
        request = wire.Resize(container_id=self.id, width=80, height=25)
        await self.call("ResizePty", lambda: self.place.tasks.resize(request), f"step {index}")

    async def _update(self, index: int, step: Step) -> None:
        request = wire.Update(container_id=self.id, resources=self.place.resources(512))
        await self.call("Update", lambda: self.place.tasks.update(request), f"step {index}")

    async def _close(self, index: int, step: Step) -> None:
        request = wire.CloseIo(container_id=self.id, stdin=True)
        await self._until_done("CloseIO", lambda: self.place.tasks.close_io(request), f"step {index}")
        self.streams.end_input()

    async def _pause(self, index: int, step: Step) -> None:
        which = wire.Which(container_id=self.id)
        with self.changing():
            if await self.call("Pause", lambda: self.place.tasks.pause(which), f"step {index}") is None:
                return
        self.state = "PAUSED"
        await self._sleep(step.seconds)
        with self.changing():
            await self._until_done("Resume", lambda: self.place.tasks.resume(which), f"step {index}")
        self.state = "" if self.over.is_set() else "RUNNING"

    async def _until_done(self, method: str, made: Callable[[], Awaitable[Answer]], step: str) -> None:
        for _ in range(ATTEMPTS):
            if self.over.is_set() or await self.call(method, made, step) is not None:
                return
            await anyio.sleep(PAUSE)

    async def _write(self, index: int, step: Step) -> None:
        self.streams.write(words_of(index))

    async def _stall(self, index: int, step: Step) -> None:
        self.streams.stalled = True
        await self._sleep(step.seconds)
        self.streams.stalled = False

    async def _get(self, index: int, step: Step) -> None:
        if await self._serves():
            await self._ask(f"step {index}")

    async def _serves(self) -> bool:
        """It listens some time after its start."""
        while not self.over.is_set():
            with suppress(OSError):
                stream = await anyio.connect_tcp("127.0.0.1", self.port)
                await stream.aclose()
                return True
            await self._sleep(0.1)
        return False

    async def _ask(self, step: str) -> None:
        begin, error = now(), ""
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=self.place.patience) as client:
                await client.get(f"http://127.0.0.1:{self.port}/")
        except httpx.HTTPError as failed:
            error = type(failed).__name__
        if error and self.state != "RUNNING":
            return  # it is being ended
        self.place.record.calls.append(Call(self.id, "", "GET", self.step(step), begin, now(), error, error))

    async def _exec(self, index: int, step: Step) -> None:
        for attempt in range(ATTEMPTS):
            if self.over.is_set() or await self._try_exec(f"e{index}" + (f"-{attempt}" if attempt else ""), step):
                return
            await anyio.sleep(PAUSE)

    async def _try_exec(self, exec_id: str, step: Step) -> bool:
        assert step.app is not None
        tasks, which = self.place.tasks, wire.Which(container_id=self.id, exec_id=exec_id)
        spec = self.place.process(self.life.engine, step.app.arguments)
        request = wire.Exec(container_id=self.id, exec_id=exec_id, spec=spec)
        async with self._turn:  # a process is not started in a container that is paused
            if self.over.is_set():
                return True
            self.asked += 1
            if await self.call("Exec", lambda: tasks.exec(request), exec_id=exec_id) is None:
                return False
            started = await self.call("Start", lambda: tasks.start(which), exec_id=exec_id)
        over = anyio.Event()
        if started is not None:
            async with anyio.create_task_group() as group:
                group.start_soon(self.wait, exec_id, over)
                if step.end:
                    with anyio.move_on_after(0.5):
                        await over.wait()
                    if not over.is_set():
                        async with self._turn:
                            await self.kill(step.end, exec_id)
                await over.wait()
        await self.delete(exec_id)
        return started is not None


class Lives:
    """All of a plan's; those that lead theirs now are looked at by others."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.running: dict[str, Running] = {}
        self._ports: set[int] = set()

    def _port(self) -> int:
        """One that nobody else was given: it is free until its app listens."""
        port = next(port for port in iter(free_port, 0) if port not in self._ports)
        self._ports.add(port)
        return port

    async def lead(self, life: Life) -> None:
        for attempt in range(ATTEMPTS):
            if await self._attempt(life, life.name + (f"-{attempt}" if attempt else "")):
                return
            await anyio.sleep(PAUSE)

    async def _attempt(self, life: Life, id: str) -> bool:
        streams = Streams(self.place, id, life.logs, life.terminal)
        port = self._port() if life.engine in SERVERS else 0
        one = Running(self.place, life, id, streams, port)
        attempt = Attempt(life, id)
        self.place.record.attempts.append(attempt)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(streams.read)
            done = await self._live(one)
            tasks.cancel_scope.cancel()
        output = streams.close()
        index = self.place.record.attempts.index(attempt)
        self.place.record.attempts[index] = replace(attempt, output=output if done else None, stopped=True)
        return done

    async def _live(self, one: Running) -> bool:
        if not await one.create():
            await self.place.forget(one.id)
            return False
        started = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.wait, "", one.over)
            started = await one.start()
            if started:
                self.running[one.id] = one
                await one.lead()
                del self.running[one.id]
            else:
                with suppress(GRPCError):
                    await self.place.tasks.kill(wire.Kill(container_id=one.id, signal=SIGKILL))
                tasks.cancel_scope.cancel()
        await one.delete()
        await self.place.forget(one.id)
        return started
