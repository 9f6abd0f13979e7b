"""One instance of a component: its store, and the host's objects that it holds handles of.

Host functions are shared by all instances of an app, which run on threads of their own: a function finds the one that
calls it by :func:`current`.
"""

from contextlib import AbstractContextManager
from typing import Any, Protocol

import anyio
import wasmtime
from wasmtime import component

from shimd.component.current import Current


class Turn(Protocol):
    """A guest's permission to compute, which it gives up while it waits (:mod:`shimd.wasi.compute_lock`)."""

    def take(self) -> None: ...

    def give(self) -> None: ...


class Guest:
    """A store with what belongs to it."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        self.store = wasmtime.Store(engine)
        self.context = self.store._context()
        self.table: dict[int, Any] = {}
        self.failure: BaseException | None = None
        """The exception that a host function raised last; it ended the guest's call."""
        self.instance: component.Instance
        self.environment: dict[str, str] = {}
        """Variables of this instance, besides the app's."""
        self.turn: Turn | None = None
        """Given back while it waits."""
        self.waiting: anyio.CancelScope | None = None
        self.given_up = False
        """Both: see :mod:`shimd.wasi.waiting`."""
        self._next = 1

    def add(self, thing: Any) -> int:
        """Into the table; returns its number there."""
        number = self._next
        self._next += 1
        self.table[number] = thing
        return number

    def take(self, number: int) -> Any:
        """Out of the table: the guest has given it back."""
        return self.table.pop(number)

    def drop(self, number: int) -> None:
        """The guest has closed its last handle."""
        close(self.table.pop(number, None))

    def close(self) -> None:
        """Give all back; the guest is not entered again."""
        for thing in self.table.values():
            close(thing)
        self.table.clear()
        self.store.close()

    def entered(self) -> AbstractContextManager[None]:
        """While this thread runs it."""
        return current.entered(self)


def close(thing: Any) -> None:
    """Whatever can be closed is told that nobody uses it any more."""
    if (method := getattr(thing, "close", None)) is not None:
        method()


current: Current[Guest] = Current()
