"""The guest that a thread runs: host functions are shared by all instances of an app, each on its own thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Guest = TypeVar("Guest")


class Current(Generic[Guest]):
    """A call returns the guest that this thread runs. A host function finds by it who has called it."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __call__(self) -> Guest:
        guest: Guest = self._local.guest
        return guest

    @contextmanager
    def entered(self, guest: Guest) -> Iterator[None]:
        """Make a guest the current one of this thread for the length of the block."""
        before = getattr(self._local, "guest", None)
        self._local.guest = guest
        try:
            yield
        finally:
            self._local.guest = before
