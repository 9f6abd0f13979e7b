"""Compilations as operators see them: in the log from their start to their end, and in what ``shimd ps`` and ``shimd
status`` show.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from shimd.errors import InvalidArgument, ShimdError, Unimplemented
from shimd.log import logger

_log = logger(__name__)
#: Digits of a program's SHA-256 that are told.
_DIGITS = 12


class Waiter(NamedTuple):
    """A container that needs a program."""

    namespace: str
    container: str
    engine: str


@dataclass(eq=False)
class Wait:
    """One that waits."""

    waiter: Waiter
    program: str
    digest: str
    since: float = field(default_factory=time.monotonic)
    """Seconds, monotonic."""


@dataclass(eq=False)
class Compilation:
    """One that waits for a processor, or goes on."""

    program: str
    engine: str
    """That compiles."""
    size: int
    """Bytes of the program."""
    digest: str
    container: str
    """That asked first."""
    since: float = field(default_factory=time.monotonic)
    """When it was asked for, or began (seconds, monotonic)."""
    queued: bool = True

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """It has its turn; how it went is told."""
        self.queued, self.since = False, time.monotonic()
        _log.info("compiling %s", self)
        with self.looked_at():
            yield
        _log.info("compiled %s in %s (%s)", self._what, self._taken, self._about)

    @contextmanager
    def looked_at(self) -> Iterator[None]:
        """Log what goes wrong within."""
        try:
            yield
        except (InvalidArgument, Unimplemented) as error:
            _log.info("%s was refused after %s (%s): %s", self._what, self._taken, self._about, error)
            raise
        except (ShimdError, OSError) as error:
            _log.warning("compiling %s failed after %s (%s): %s", self._what, self._taken, self._about, error)
            raise
        except BaseException:
            if not self.queued:
                _log.warning("compiling %s was broken off after %s (%s)", self._what, self._taken, self._about)
            raise

    def drop(self) -> bool:
        """Nobody waits for it any more. Returns whether it is given up: not so what has begun."""
        if self.queued:
            _log.info("%s is not compiled: nobody waits for it any more", self)
        return self.queued

    def __str__(self) -> str:
        return f"{self._what} ({self._about})"

    @property
    def _what(self) -> str:
        return f"{self.program} for {self.engine}"

    @property
    def _about(self) -> str:
        return f"container {self.container}, {self.size} bytes, sha256 {self.digest[:_DIGITS]}"

    @property
    def _taken(self) -> str:
        return f"{time.monotonic() - self.since:.2f} s"


class Compilations:
    """All of a daemon's."""

    def __init__(self) -> None:
        self.all: list[Compilation] = []
        self._waits: list[Wait] = []

    def of(self, wait: Wait) -> Compilation | None:
        """The compilation that a wait is for; ``None``: nothing that takes long."""
        return next((one for one in self.all if one.digest == wait.digest), None)

    @property
    def waits(self) -> list[Wait]:
        """The waits of containers for a compilation."""
        return [wait for wait in self._waits if self.of(wait) is not None]

    @contextmanager
    def waiting(self, waiter: Waiter, program: str, digest: str) -> Iterator[None]:
        wait = Wait(waiter, program, digest)
        self._waits.append(wait)
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception) and (compilation := self.of(wait)) is not None:
                goes_on = "" if compilation.queued else ", which is compiled all the same"
                _log.info("container %s waits for %s no more%s", waiter.container, program, goes_on)
            raise
        finally:
            self._waits.remove(wait)

    @contextmanager
    def listed(self, compilation: Compilation) -> Iterator[None]:
        self.all.append(compilation)
        try:
            yield
        finally:
            self.all.remove(compilation)
