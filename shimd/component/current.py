"""The guest that a thread runs: host functions are shared by all instances of an app, each on its own thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Guest = TypeVar("Guest")


class Current(Generic[Guest]):
    """Called, it is the guest that this thread runs."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __call__(self) -> Guest:
        guest: Guest = self._local.guest
        return guest

    @contextmanager
    def entered(self, guest: Guest) -> Iterator[None]:
        """While this thread runs it."""
        before = getattr(self._local, "guest", None)
        self._local.guest = guest
        try:
            yield
        finally:
            self._local.guest = before
