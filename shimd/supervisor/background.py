"""Tasks that live as long as the daemon, none of which may take it down."""

from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import anyio.abc

from shimd.log import logger

_log = logger(__name__)
Args = TypeVarTuple("Args")


class Background:
    """A task group whose tasks' errors are logged and end only that task: a bug in one app's affairs is that app's."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self._tasks = tasks

    def start_soon(self, function: Callable[[*Args], Awaitable[None]], *args: *Args) -> None:
        self._tasks.start_soon(_logged, function, *args)


async def _logged(function: Callable[[*Args], Awaitable[None]], *args: *Args) -> None:
    try:
        await function(*args)
    except Exception:
        _log.exception("a background task failed: %s", getattr(function, "__qualname__", function))
