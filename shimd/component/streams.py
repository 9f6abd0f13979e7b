"""What guests that run natively may be given besides values: streams and futures, which they read when they like
(:mod:`shimd.component.bridge`)."""

from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Any


class Stream:
    """A stream's items, in pieces: each is made when the guest has read the one before it."""

    def __init__(self, pieces: Iterator[Sequence[Any]]) -> None:
        """:param pieces: lists, or bytes, asked for on threads, one at a time. What has a ``close`` has that called as
        soon as the guest reads no more."""
        self._pieces = pieces
        self._one = Lock()

    def read(self) -> Sequence[Any]:
        """Returns the next items; none: there are no more."""
        with self._one:
            return next(filter(None, self._pieces), [])

    def close(self) -> None:
        with self._one:
            if (close := getattr(self._pieces, "close", None)) is not None:
                close()


class Future:
    """A value that is there later: made when the guest first asks for it."""

    def __init__(self, read: Callable[[], Any]) -> None:
        """:param read: may be ``async``; else it is called on a thread"""
        self.read = read
