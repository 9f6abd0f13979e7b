"""From a plan to a worker that is ready: the conversation of ``shimd/worker/messages.py`` as the supervisor leads
it.
"""

import itertools
import os
import time
from pathlib import Path

from shimd.errors import DataLoss, Internal, from_code
from shimd.log import logger
from shimd.task.context import Context
from shimd.task.questions import Questions
from shimd.worker.client import HandedOver, Worker
from shimd.worker.messages import Plan

_log = logger(__name__)
_serial = itertools.count()
#: Engines that a program may go through: a container without a manifest under spin, say, which serves HTTP.
_HANDS = 3


async def spawn(context: Context, container: str, plan: Plan, stdio: tuple[int, int, int]) -> Worker:
    """Fork a worker and lead it to ready.

    :raises NativeProgram: the program is none for an engine
    :raises ShimdError: it failed; the worker is gone
    """
    try:
        return await _with_right_engine(context, container, plan, stdio)
    except DataLoss as error:  # a disk that crashed, say: _lead has thrown the module away, and it is compiled anew
        _log.warning("container %s: %s", container, error)
        return await _with_right_engine(context, container, plan, stdio)


async def _with_right_engine(context: Context, container: str, plan: Plan, stdio: tuple[int, int, int]) -> Worker:
    engine: str | None = None
    for _ in range(_HANDS):
        try:
            return await _spawn(context, container, plan, stdio, engine)
        except HandedOver as other:
            engine = other.engine
            plan = plan | (Plan(artifact=other.artifact) if other.artifact else Plan())
    raise Internal(f"engines hand {plan['id']} over to each other")


async def _spawn(
    context: Context, container: str, plan: Plan, stdio: tuple[int, int, int], engine: str | None
) -> Worker:
    key = f"{context.namespace}/{plan['id']}@{time.time_ns()}.{next(_serial)}"
    forks = await context.forks(engine)
    worker = await forks.spawn(key, plan, stdio)
    try:
        await _lead(context, container, worker, plan.get("artifact"))
    except BaseException:
        await forks.end(worker)
        raise
    return worker


async def _lead(context: Context, container: str, worker: Worker, artifact: str | None) -> None:
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
                case "ready":
                    worker.handled = frozenset(message["signals"])
                    return
        finally:
            for fd in fds:
                os.close(fd)
