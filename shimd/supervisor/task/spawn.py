"""From a plan to a worker that is ready: the conversation of ``shimd/protocol/messages.py`` as the supervisor leads
it.
"""

import itertools
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

from shimd.engines.registry import engine_runs_applications
from shimd.errors import DataLoss, Internal, ShimdError, from_code
from shimd.log import logger
from shimd.protocol.messages import Plan
from shimd.supervisor.task import plans
from shimd.supervisor.task.context import Context
from shimd.supervisor.task.questions import Questions
from shimd.supervisor.workers.fork_client import Coming, HandedOver, Worker
from shimd.supervisor.workers.jailers import Jail, Meanwhile, nothing
from shimd.supervisor.workers.without_python import block_of, is_likely, may_wait

_log = logger(__name__)
_serial = itertools.count()
#: Engines that a program may go through: a container without a manifest under spin, say, which serves HTTP.
_HANDS = 3
Held = Callable[[Worker], Awaitable[None]]


async def nothing_held(_worker: Worker) -> None:
    pass


async def spawn(
    context: Context,
    container: str,
    plan: Plan,
    stdio: tuple[int, int, int],
    meanwhile: Meanwhile = nothing,
    held: Held = nothing_held,
) -> Worker:
    """Fork a worker and lead it to ready.

    :param meanwhile: called before that, but while its jail is being made
    :param held: called when it is in its namespaces, if there are hooks to be run then
    :raises NativeProgram: the program is none for an engine
    :raises ShimdError: it failed; the worker is gone
    """
    async with aclosing(_Begun(context, plan, stdio)) as begun:
        if plan["kind"] == "sandbox":
            await meanwhile()
            return await _spawn(_Attempt(context, container, plan, stdio, begun, held))

        async def begin() -> None:
            await meanwhile()
            await begun.begin()

        with await context.jail(plan, stdio[0] if plan["terminal"] else None, begin) as jail:
            attempt = _Attempt(context, container, plans.of_worker(plan, jail), stdio, begun, held, jail)
            try:
                return await _with_right_engine(attempt)
            except DataLoss as error:  # a disk that crashed, say: _lead has thrown the module away, it is compiled anew
                _log.warning("container %s: %s", container, error)
                return await _with_right_engine(attempt)


class _Begun:
    """A worker that is forked while its jail is being made; which takes one without Python, as most programs do."""

    def __init__(self, context: Context, plan: Plan, stdio: tuple[int, int, int]) -> None:
        self._context, self._plan, self._stdio = context, plan, stdio
        self._coming: Coming | None = None

    async def begin(self) -> None:
        context, plan = self._context, self._plan
        if is_likely(context.engine, plan) and may_wait(plan):
            forks = await context.forks()
            self._coming = await forks.begin(_key(context, plan), plan, self._stdio)

    def take(self) -> Coming | None:
        """Whoever has it has to end it."""
        coming, self._coming = self._coming, None
        return coming

    async def aclose(self) -> None:
        """End it, unless it was taken."""
        if unwanted := self.take():
            await unwanted.end()


@dataclass(frozen=True)
class _Attempt:
    context: Context
    container: str
    plan: Plan
    stdio: tuple[int, int, int]
    begun: _Begun
    held: Held
    jail: Jail | None = None
    engine: str | None = None
    """Another than the context's."""


async def _with_right_engine(attempt: _Attempt) -> Worker:
    attempt = await _with_program(attempt)
    for _ in range(_HANDS):
        try:
            return await _spawn(attempt)
        except HandedOver as other:
            found = Plan(artifact=other.artifact) if other.artifact else Plan()
            attempt = replace(attempt, engine=other.engine, plan=attempt.plan | found)
    raise Internal(f"engines hand {attempt.plan['id']} over to each other")


async def _with_program(attempt: _Attempt) -> _Attempt:
    """With the compiled form of the program that the jail shows, if the worker does not look for it itself.

    :raises NativeProgram: it is none for an engine
    """
    context, jail, plan = attempt.context, attempt.jail, attempt.plan
    if jail is None or (plan["kind"] == "init" and engine_runs_applications(context.engine)):
        return attempt
    try:
        artifact = await context.program(attempt.container, jail.path, jail.program)
    except ShimdError as error:
        if jail.program is not None:
            raise
        raise from_code(error.code, jail.missing) from error
    return replace(attempt, plan=plan | Plan(artifact=str(artifact)))


async def _spawn(attempt: _Attempt) -> Worker:
    worker = await _born(attempt)
    try:
        await _lead(attempt, worker)
    except BaseException:
        await worker.forks.end(worker)
        raise
    return worker


async def _born(attempt: _Attempt) -> Worker:
    context, plan, jail = attempt.context, attempt.plan, attempt.jail
    engine = attempt.engine or context.engine
    forks = await context.forks(engine)
    if jail is None:
        return await forks.spawn(_key(context, plan), plan, attempt.stdio)
    block = block_of(engine, plan)
    fds = [jail.steps, *jail.fds]
    return await forks.spawn(_key(context, plan), plan, attempt.stdio, fds, block, attempt.begun.take())


def _key(context: Context, plan: Plan) -> str:
    return f"{context.namespace}/{plan['id']}@{time.time_ns()}.{next(_serial)}"


async def _lead(attempt: _Attempt, worker: Worker) -> None:
    context, container, artifact = attempt.context, attempt.container, attempt.plan.get("artifact")
    questions = Questions(context, container)
    while True:
        packet = await worker.receive()
        if packet is None:
            raise Internal("the worker process died while it was set up")
        message, fds = packet
        try:
            match message["ev"]:
                case "entry" | "image" | "layer" | "files":
                    artifact = await questions.answer(worker, message, fds) or artifact
                case "engine":
                    raise HandedOver(message["name"], artifact)
                case "warning":
                    _log.warning("container %s: %s", container, message["message"])
                case "error":
                    if message["code"] == DataLoss.code and artifact:
                        await context.discard(Path(artifact))
                    raise from_code(message["code"], message["message"])
                case "held":
                    await attempt.held(worker)
                    if attempt.jail is not None:
                        await attempt.jail.finish()
                    worker.send({"op": "go"})
                case "ready":
                    worker.handled = frozenset(message["signals"])
                    return
        finally:
            for fd in fds:
                os.close(fd)
