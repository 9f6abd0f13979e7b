"""The engine's clock: its epoch goes on while guests run, so that one that spins can be ended."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import wasmtime

from shimd.apps.background_task import BackgroundTask

#: Seconds between two ticks.
_TICK = 0.5


class EpochClock(BackgroundTask):
    """One for an engine, whatever runs on it: twice as many ticks would halve everybody's time. ``async with`` it."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._engine = engine
        self._running = 0
        self._busy = anyio.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """While a guest runs; an idle app stays asleep."""
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
        """An epoch deadline that comes not before so many seconds."""
        return math.ceil(seconds / _TICK) + 1
