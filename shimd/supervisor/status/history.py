"""The last events and the last lines of the log, kept in memory for operators.

A ring holds so many items and no more, whoever reads it. A reader has a position in it and no queue of its own, so that
a slow one costs nothing; once it falls too far behind it misses what the ring dropped, and is told how much.
"""

import asyncio
import logging
import re
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Generic, NamedTuple, TypeVar

import anyio

from shimd.api.containerd.events import TaskExit
from shimd.supervisor.events import Event

T = TypeVar("T")

#: Characters of one log line that are kept: a traceback, but not a flood.
_LONGEST_LINE = 8192


class Ring(Generic[T]):
    """The last ``size`` items. To be used in the event loop's thread alone."""

    def __init__(self, size: int) -> None:
        self._items: deque[T] = deque(maxlen=size)
        self._end = 0
        """The number of items ever appended."""
        self._grown: anyio.Event | None = None

    def append(self, item: T) -> None:
        self._items.append(item)
        self._end += 1
        if self._grown is not None:
            self._grown.set()
            self._grown = None

    async def read(self, last: int, follow: bool, wanted: Callable[[T], bool]) -> AsyncGenerator[tuple[T, int], None]:
        """The ``last`` of the wanted items that are kept (0: all of them), then, if ``follow``, those to come.

        With each, how many items (wanted or not) were dropped since the one before, because the reader was too slow.
        """
        position = self._end
        kept = [item for item in self._items if wanted(item)]
        for item in kept[-last:]:
            yield item, 0
        lost = 0
        while follow:
            dropped = max(0, self._end - len(self._items) - position)
            position, lost = position + dropped, lost + dropped
            if position == self._end:
                await self._wait_grown()
                continue
            item = self._items[position - self._end]
            position += 1
            if wanted(item):
                yield item, lost
                lost = 0

    async def _wait_grown(self) -> None:
        if self._grown is None:
            self._grown = anyio.Event()
        await self._grown.wait()


class Happened(NamedTuple):
    """An event, without what an operator does not look at (its mounts would be most of it)."""

    time: datetime
    namespace: str
    topic: str
    container: str
    exec: str
    pid: int
    status: int | None


def happened(event: Event) -> Happened:
    message = event.message
    container: str = getattr(message, "container_id", "")
    exec_id: str = getattr(message, "exec_id", "") or getattr(message, "id", "")
    return Happened(
        event.time,
        event.namespace,
        event.topic,
        container,
        "" if isinstance(message, TaskExit) and exec_id == container else exec_id,
        getattr(message, "pid", 0),
        getattr(message, "exit_status", None),
    )


class Line(NamedTuple):
    time: float
    """Seconds since the epoch."""
    level: str
    message: str


class LogRing(logging.Handler):
    """The log's last lines, from whichever thread they come. Made in the event loop; use as a context manager."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.ring: Ring[Line] = Ring(size)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Not the debugging lines of libraries: those of gRPC, written while a line is sent, would never end."""
        return record.name.startswith("shimd") or record.levelno >= logging.WARNING

    def emit(self, record: logging.LogRecord) -> None:
        line = Line(record.created, record.levelname, self.format(record)[:_LONGEST_LINE])
        if threading.get_ident() == self._thread:
            self.ring.append(line)
            return
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self.ring.append, line)

    def __enter__(self) -> "LogRing":
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_exc: object) -> None:
        logging.getLogger().removeHandler(self)


def naming(container: str) -> Callable[[Line], bool]:
    """Returns a test of whether a line has a container's id as a word (not ``a`` in ``a-b``); empty: every line has."""
    if not container:
        return lambda line: True
    word = re.compile(rf"(?<![\w.-]){re.escape(container)}(?![\w-]|\.\w)")
    return lambda line: word.search(line.message) is not None


def now() -> datetime:
    return datetime.now(UTC)
