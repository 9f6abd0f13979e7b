"""Rows of a result that a guest reads bit by bit, and the connection that they come from."""

from collections.abc import Awaitable, Callable, Iterator
from threading import Lock
from typing import Any, TypeVar

import anyio
from anyio import from_thread

from shimd.component.results import Err
from shimd.component.streams import Future, Stream

#: Bytes of rows that are read ahead of a guest, as a rule.
AHEAD = 64 << 10
#: Bytes of what a guest is told at a time, at most: a call over the bridge takes 16 MiB, with what is around it.
MOST = 15 << 20
#: Bytes that a value has, whatever is in it.
_LEAST = 24

T = TypeVar("T")


def size(value: Any) -> int:
    """Returns about how many bytes a value has on its way."""
    match value:
        case str() | bytes():
            return _LEAST + len(value)
        case list() | tuple() | set():
            return _LEAST + sum(map(size, value))
    return _LEAST


def too_much(found: Any) -> str | None:
    """Returns what to tell a guest of a result that is too large for it; ``None``: it is not."""
    bytes_ = size(found)
    return f"the result has {bytes_} bytes, and {MOST} can be told at a time" if bytes_ > MOST else None


class Turns:
    """Who has a connection: one call at a time, or the rows of one. It ends when its guest has dropped it and them."""

    def __init__(self, end: Callable[[], None]) -> None:
        """:param end: ends the connection; called on a guest's thread"""
        self._end = end
        self._one = anyio.Semaphore(1)
        self._counted = Lock()
        self._users = 1
        """The guest itself, and rows that it reads."""
        self.is_dropped = False

    async def take(self, work: Callable[[], Awaitable[T]], *, keeps: bool = False) -> T:
        """Have something done, when it is its turn.

        :param keeps: whether the turn lasts, if that is done, until :meth:`leave`
        """
        await self._one.acquire()
        lasts = False
        try:
            done = await work()
            lasts = keeps
        finally:
            if not lasts:
                self._one.release()
        with self._counted:
            self._users += lasts
        return done

    def leave(self) -> None:
        from_thread.run_sync(self._one.release)
        self._gone()

    def drop(self) -> None:
        """The guest has."""
        self.is_dropped = True
        self._gone()

    def _gone(self) -> None:
        with self._counted:
            self._users -= 1
            last = self._users == 0
        if last:
            self._end()


class Rows(Iterator[list[Any]]):
    """Pieces of a result's rows."""

    def __init__(self, read: Callable[[], list[Any]], close: Callable[[], None]) -> None:
        """:param read: returns the next rows; none: there are no more. May raise ``Err``.
        :param close: called once, when no more are read; may raise ``Err``
        """
        self._read, self._close = read, close
        self._is_over = False
        self._over = anyio.Event()
        self._failure: Err | None = None

    @property
    def given(self) -> tuple[Stream, Future]:
        """What a guest is given of them: the rows, and how it went."""
        return Stream(self), Future(self._outcome)

    def __next__(self) -> list[Any]:
        if not self._is_over:
            try:
                if rows := self._read():
                    return rows
            except Err as failure:
                self._failure = failure
            self.close()
        raise StopIteration

    def close(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        try:
            self._close()
        except Err as failure:
            self._failure = self._failure or failure
        finally:
            from_thread.run_sync(self._over.set)

    async def _outcome(self) -> None:
        """Wait for the last of them, or for the guest to want no more.

        :raises Err: there should have been more
        """
        await self._over.wait()
        if self._failure is not None:
            raise self._failure
