"""Watches over a process that answers requests: one that was stopped, or hangs, is as good as dead.

What counts is silence after having been asked, in turns of the clock, not seconds: where the whole node stood still, or
this process did, many seconds are one turn.
"""

from typing import Protocol

import anyio

#: Seconds of a turn. Each asks once more for a sign of life.
TURN = 5.0
#: Turns of silence after which a process is dead: it has twenty seconds, whatever it was asked for. Nothing that it
#: does takes long; what a zygote may take in its stead is less (``forkserver/zygote.py``).
SILENT = 4
#: The same of one that has never said a word: it loads an engine first.
WARMING = 24


class Watched(Protocol):
    """What is watched."""

    @property
    def heard(self) -> int:
        """How many messages have come from it."""
        ...

    def ping(self) -> None:
        """Ask for a message, without waiting."""
        ...


async def until_silent(watched: Watched, *, warm: bool = False) -> None:
    """Return when it does not answer any more.

    :param warm: whether it has been at work before, for others
    """
    heard, silent = watched.heard, 0
    watched.ping()
    while silent < (SILENT if warm or watched.heard else WARMING):
        await anyio.sleep(TURN)
        silent = silent + 1 if watched.heard == heard else 0
        heard = watched.heard
        watched.ping()
