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


class ComputeLease(Protocol):
    """A guest's permission to compute, which it gives up while it waits."""

    def acquire(self) -> None: ...

    def release(self) -> None: ...


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
        self.lease: ComputeLease | None = None
        """The guest's permission to compute, which is released while it waits; ``None``: it needs none."""
        self.waiting: anyio.CancelScope | None = None
        """The wait that is under way, to be cancelled (:mod:`shimd.wasi.waiting`)."""
        self.abandoned = False
        """True once nobody needs the guest's answer: its waits end at once."""
        self._next = 1

    def add(self, thing: Any) -> int:
        """Put an object into the table and return its number there."""
        number = self._next
        self._next += 1
        self.table[number] = thing
        return number

    def remove(self, number: int) -> Any:
        """Remove an object from the table and return it: the guest has handed over its handle."""
        return self.table.pop(number)

    def drop(self, number: int) -> None:
        """Remove and close an object: the guest has dropped its last handle."""
        close(self.table.pop(number, None))

    def close(self) -> None:
        """Close all objects and the store. The guest must not be entered again."""
        for thing in self.table.values():
            close(thing)
        self.table.clear()
        self.store.close()

    def entered(self) -> AbstractContextManager[None]:
        """Make this guest the current one of this thread for the length of the block."""
        return current.entered(self)


def close(thing: Any) -> None:
    """Close an object, if it has a method ``close``."""
    if (method := getattr(thing, "close", None)) is not None:
        method()


current: Current[Guest] = Current()
