"""Waiting for what is short (descriptors, memory, room): where an error would be somebody's end, and nobody's fault."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from shimd.errors import ResourceExhausted, ShimdError, plain
from shimd.log import logger

T = TypeVar("T")
_log = logger(__name__)
#: Seconds until it is tried again.
_PAUSE = 0.1


async def once_there_is_room(action: Callable[[], T], what: str) -> T:
    """Returns what ``action`` returns, when nothing is short any more; whatever else it raises is raised.

    :param what: it is, for the log, which says so once
    """

    async def act() -> T:
        return action()

    return await done_once_there_is_room(act, what)


async def done_once_there_is_room(action: Callable[[], Awaitable[T]], what: str) -> T:
    """The same of what waits."""
    told = False
    while True:
        try:
            return await action()
        except (OSError, MemoryError, ShimdError) as error:
            short = plain(error)
            if not isinstance(short, ResourceExhausted):
                raise
            if not told:
                _log.error("%s waits: %s", what, short)
            told = True
        await anyio.sleep(_PAUSE)
