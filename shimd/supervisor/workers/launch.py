"""From a plan to a worker that is ready: the one way to start an app, of the daemon and of ``shimd run``."""

import itertools
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

from shimd.engines.registry import engine_family
from shimd.errors import DataLoss, Internal, ShimdError, Unimplemented, from_code
from shimd.linux.memory_file import read_file
from shimd.log import logger
from shimd.protocol.constants import JAIL_FD
from shimd.protocol.plans import App, Pause
from shimd.protocol.worker import (
    AskFiles,
    AskImage,
    AskLayer,
    AskProgram,
    Error,
    Go,
    HandsOver,
    Held,
    OtherEngine,
    Ready,
    Warning,
)
from shimd.supervisor.workers.fork_client import ANYWHERE, Birthplace, PendingWorker, Worker
from shimd.supervisor.workers.programs import Program, Programs
from shimd.supervisor.workers.questions import Questions
from shimd.supervisor.workers.without_python import engine_block, is_likely, may_hand_over, may_wait

_log = logger(__name__)
_serial = itertools.count()
#: Engines that a program may go through: a container without a manifest under spin, say, which serves HTTP.
_MOST_ENGINES = 3
WhileHeld = Callable[[Worker], Awaitable[None]]


async def no_hooks(_worker: Worker) -> None:
    pass


def new_key(name: str) -> str:
    """A name for a worker that no other has, of this daemon or an earlier one."""
    return f"{name}@{time.time_ns()}.{next(_serial)}"


@dataclass(frozen=True)
class ProgramFile:
    """The program that ``args[0]`` of a process names."""

    path: str
    fd: int | None
    """``None``: there is no such file. The image may hold the program."""
    missing: str = ""
    """Why not."""
    digest: str = ""
    """Its SHA-256, hexadecimal, if that is known."""


class _RunsElsewhere(Exception):
    """A worker has found that another engine runs its program."""

    def __init__(self, engine: str, program: Program | None) -> None:
        self.engine, self.program = engine, program


@dataclass(frozen=True)
class _Packed:
    """An application whose worker leaves it to one without Python."""

    fds: Sequence[int]
    """The block, and what it names."""
    entries: int
    given: Sequence[Program]
    """Its compiled programs."""

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


class Launch:
    """One app's start.

    :param programs: whose engine is asked for
    :param name: for the worker's key
    :param container: whose image may hold the program, and that warnings name
    :param while_held: called when the worker is in its namespaces, if there are hooks to be run then
    """

    def __init__(
        self,
        programs: Programs,
        name: str,
        container: str,
        stdio: tuple[int, int, int],
        birthplace: Birthplace = ANYWHERE,
        while_held: WhileHeld = no_hooks,
    ) -> None:
        self._programs, self._name, self._container = programs, name, container
        self._stdio, self._birthplace, self._while_held = stdio, birthplace, while_held
        self._early: PendingWorker | None = None

    async def begin(self, *, listens: bool) -> None:
        """Fork a worker before it is known what it will run, which takes one without Python, as most programs do.

        :param listens: whether the app is to be given sockets
        """
        engine = self._programs.engine
        if is_likely(engine, listens=listens) and may_wait(self._birthplace):
            forks = await self._programs.forks()
            self._early = await forks.spawn_early(self._key(), self._stdio, self._birthplace)

    async def aclose(self) -> None:
        """End what was begun and is not needed."""
        if (early := self._taken()) is not None:
            await early.end()

    async def app(self, plan: App, jail: Sequence[int], program: ProgramFile | None) -> Worker:
        """Lead a worker to ready.

        :param jail: the system calls that lead to where the app lives, and their descriptors
        :param program: to be compiled; ``None``: the worker finds it by itself
        :raises NativeProgram: the program is none for an engine
        :raises ShimdError: it failed; the worker is gone
        """
        try:
            return await self._with_right_engine(plan, jail, program)
        except DataLoss as error:  # a disk that crashed, say: what did not load is gone, and is compiled anew
            _log.info("container %s: it is compiled anew: %s", self._container, error)
            return await self._with_right_engine(plan, jail, program)

    async def pause(self, plan: Pause) -> Worker:
        """Lead a pod's first process to ready."""
        forks = await self._programs.forks()
        worker = await forks.spawn(self._key(), plan, self._stdio, self._birthplace)
        await self._led(worker, self._programs.engine)
        return worker

    async def _with_right_engine(self, plan: App, jail: Sequence[int], file: ProgramFile | None) -> Worker:
        engine = self._programs.engine
        if file is not None:
            program = await self._compiled(file)
            plan, engine = replace(plan, artifact=str(program.artifact)), _runner(engine, program)
        for _ in range(_MOST_ENGINES):
            try:
                return await self._spawned(engine, plan, jail)
            except _RunsElsewhere as other:
                engine = other.engine
                if other.program is not None:
                    plan, engine = replace(plan, artifact=str(other.program.artifact)), _runner(engine, other.program)
        raise Internal(f"engines hand {self._name} over to each other")

    async def _compiled(self, file: ProgramFile) -> Program:
        try:
            return await self._programs.program(self._container, file.path, file.fd, file.digest)
        except ShimdError as error:
            if file.fd is not None:
                raise
            raise from_code(error.code, file.missing) from error

    async def _spawned(self, engine: str, plan: App, jail: Sequence[int]) -> Worker:
        forks = await self._programs.forks(engine)
        plan = replace(plan, hands_over=may_hand_over(engine))
        with self._viewed(plan, jail) as (viewed, descriptors):
            block = engine_block(engine, viewed)
            key, early = self._key(), self._taken()
            worker = await forks.spawn(key, viewed, self._stdio, self._birthplace, descriptors, block, early)
        given = [Program(Path(plan.artifact))] if plan.artifact else []
        packed = await self._led(worker, engine, given)
        if packed is None:
            return worker
        with closing(packed):
            return await self._handed_over(worker, engine, plan, jail, packed)

    async def _handed_over(
        self, former: Worker, engine: str, plan: App, jail: Sequence[int], packed: _Packed
    ) -> Worker:
        """Lead a worker without Python to ready, or another with it, if there can be none.

        :param former: that has packed the application, and is ended
        """
        forks, given = former.forks, packed.given
        block, *own = packed.fds
        try:
            pending = await forks.spawn_early(self._key(), self._stdio, self._birthplace)
        finally:
            await forks.end(former)
        try:
            worker = await pending.enter(read_file(block), [*jail, *own], packed.entries, len(own) - packed.entries)
        except Unimplemented:
            plan = replace(plan, hands_over=False)
            worker, given = await forks.spawn(self._key(), plan, self._stdio, self._birthplace, jail), []
        await self._led(worker, engine, given)
        return worker

    @contextmanager
    def _viewed(self, plan: App, jail: Sequence[int]) -> Iterator[tuple[App, Sequence[int]]]:
        """With the directory of its compiled module, last, if that is known."""
        if not plan.artifact:
            yield plan, jail
            return
        view = self._programs.view(Path(plan.artifact))
        try:
            yield replace(plan, view=JAIL_FD + len(jail) - 1), [*jail, view]  # the first are the calls
        finally:
            os.close(view)

    async def _led(self, worker: Worker, engine: str, given: Sequence[Program] = ()) -> _Packed | None:
        """:param given: compiled programs that it has"""
        try:
            return await self._lead(worker, engine, given)
        except BaseException:
            await worker.forks.end(worker)
            raise

    async def _lead(self, worker: Worker, engine: str, given: Sequence[Program]) -> _Packed | None:
        """Answer what it says until it is ready, or leaves that to another."""
        questions = Questions(self._programs, self._container, engine)
        while True:
            packet = await worker.receive()
            if packet is None:
                raise Internal("the worker process died while it was set up")
            message, fds = packet
            try:
                match message:
                    case AskProgram() | AskImage() | AskLayer() | AskFiles():
                        await questions.answer(worker, message, fds)
                    case OtherEngine():
                        raise _RunsElsewhere(message.name, questions.given[-1] if questions.given else None)
                    case HandsOver():
                        return _Packed([os.dup(fd) for fd in fds], message.entries, questions.given)
                    case Warning():
                        _log.warning("container %s: %s", self._container, message.message)
                    case Error():
                        await self._discard(message, [*given, *questions.given])
                        raise from_code(message.code, message.message)
                    case Held():
                        await self._while_held(worker)
                        worker.send(Go())
                    case Ready():
                        worker.handled = frozenset(message.signals)
                        return None
                    case _:
                        assert_never(message)
            finally:
                for fd in fds:
                    os.close(fd)

    async def _discard(self, error: Error, given: Sequence[Program]) -> None:
        """Throw compiled programs away of which one does not load."""
        for artifact in {program.artifact for program in given} if error.code == DataLoss.code else ():
            _log.info("container %s: %s is thrown away", self._container, artifact)
            await self._programs.discard(artifact)

    def _taken(self) -> PendingWorker | None:
        early, self._early = self._early, None
        return early

    def _key(self) -> str:
        return new_key(self._name)


def _runner(engine: str, program: Program) -> str:
    """The engine that runs a program: what its compiler noted holds for that one; others of its family see for
    themselves."""
    with suppress(ShimdError):
        if program.engine and engine_family(engine) == engine:
            return program.engine
    return engine
