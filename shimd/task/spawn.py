"""From a plan to a worker that is ready: the conversation of ``shimd/worker/messages.py`` as the supervisor leads
it.
"""

import itertools
import os
import time
from contextlib import suppress

import anyio

from shimd.errors import Internal, ShimdError, from_code
from shimd.log import logger
from shimd.task.context import Context
from shimd.worker.client import Worker
from shimd.worker.messages import Message, Plan

_log = logger(__name__)
_serial = itertools.count()


async def spawn(context: Context, container: str, plan: Plan, stdio: tuple[int, int, int]) -> Worker:
    """Fork a worker and lead it to ready.

    :raises ShimdError: it failed; the worker is gone
    """
    key = f"{context.namespace}/{plan['id']}@{time.time_ns()}.{next(_serial)}"
    forks = await context.forks()
    worker = await forks.spawn(key, plan, stdio)
    try:
        await _lead(context, container, worker)
    except BaseException:
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                worker.signal(9)
            await worker.exited.wait()
            with suppress(ShimdError):
                await forks.forget(worker)
        raise
    return worker


async def _lead(context: Context, container: str, worker: Worker) -> None:
    while True:
        packet = await worker.receive()
        if packet is None:
            raise Internal("the worker process died while it was set up")
        message, fds = packet
        try:
            match message["ev"]:
                case "entry":
                    worker.send(await _program(context, container, message, fds))
                case "warning":
                    _log.warning("container %s: %s", container, message["message"])
                case "error":
                    raise from_code(message["code"], message["message"])
                case "ready":
                    return
        finally:
            for fd in fds:
                os.close(fd)


async def _program(context: Context, container: str, message: Message, fds: list[int]) -> Message:
    """The answer to ``entry``."""
    try:
        artifact = await context.program(container, message["name"], fds[0] if fds else None)
    except ShimdError as error:
        return {"op": "fail", "code": int(error.code), "message": message.get("missing") or str(error)}
    return {"op": "load", "artifact": str(artifact)}
