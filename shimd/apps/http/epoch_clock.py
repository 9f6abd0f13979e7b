"""Increments the engine's epoch while guests run, so that one that spins can be ended.

A guest traps when the epoch has reached its store's deadline (wasmtime's ``Config::epoch_interruption``).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import wasmtime

from shimd.apps.background_task import BackgroundTask

#: Seconds between two increments of the epoch.
_TICK = 0.5


class EpochClock(BackgroundTask):
    """The epoch clock of one engine: a second one would halve the time of all its guests. ``async with`` it."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._engine = engine
        self._running = 0
        self._busy = anyio.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Returns a context manager for the time that a guest runs: an idle app's process stays asleep."""
        self._running += 1
        self._busy.set()
        try:
            yield
        finally:
            self._running -= 1

    async def _work(self) -> None:
        while True:
            self._busy = anyio.Event()
            while self._running:
                await anyio.sleep(_TICK)
                self._engine.increment_epoch()
            await self._busy.wait()

    @staticmethod
    def within(seconds: float) -> int:
        """Returns an epoch deadline that comes no earlier than ``seconds`` from now."""
        return math.ceil(seconds / _TICK) + 1
