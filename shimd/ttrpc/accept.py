"""Accepting connections for as long as there is a listener, whatever accept(2) says."""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from anyio.abc import Listener, TaskGroup

_logger = logging.getLogger("shimd.ttrpc")
#: Seconds between two attempts while none succeeds.
_PAUSES = (0.05, 1.0)

StreamT = TypeVar("StreamT")


async def accept_all(
    listener: Listener[StreamT], handler: Callable[[StreamT], Awaitable[None]], tasks: TaskGroup | None, name: str
) -> None:
    """Run ``handler`` for each connection until the listener is closed. An error is somebody's shortage (of
    descriptors, of memory): it is logged once, and connections wait in the backlog until it has passed.

    :param tasks: for the handlers, if the listener has no place of its own for them
    :param name: what the connections are for, in the log
    """
    trouble = _Trouble(name)

    async def handle(stream: StreamT) -> None:
        trouble.over()
        await handler(stream)

    while True:
        try:
            await listener.serve(handle, tasks)
        except anyio.ClosedResourceError:
            return
        except (OSError, anyio.BrokenResourceError) as error:  # anyio wraps what accept(2) says into the latter
            await anyio.sleep(trouble.pause(error))


class _Trouble:
    """One sentence when it begins, and one when it is over."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pause = math.inf

    def pause(self, error: Exception) -> float:
        """How long to wait after this error."""
        if self._pause == math.inf:
            _logger.error("cannot accept connections %s for now: %s", self._name, error.__cause__ or error)
            self._pause = _PAUSES[0]
        else:
            self._pause = min(self._pause * 2, _PAUSES[1])
        return self._pause

    def over(self) -> None:
        if self._pause != math.inf:
            _logger.warning("connections %s are accepted again", self._name)
            self._pause = math.inf
