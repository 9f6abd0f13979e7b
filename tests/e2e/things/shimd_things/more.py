"""What the tests ask for besides: all of the interface, faults, and Redis as Spin gives it."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import anyio

from shimd.apps.spin.allowed import AllowedHosts
from shimd.apps.spin.clients import Clients
from shimd.apps.spin.outbound.redis import Redis
from shimd.shim import Case, Err, Future, Invocation, Stream
from shimd.wasi.trust import BuiltIn, Trust
from shimd.wasi.waiting import wait_for

from . import Book, Shelf, ThingsEngine


class CountedBook(Book):
    lost_ = 0

    def close(self) -> None:
        CountedBook.lost_ += 1

    @classmethod
    def lost(cls) -> int:
        return cls.lost_


class MoreShelf(Shelf):
    def __init__(self, invocation: Invocation) -> None:
        super().__init__(invocation)
        self.Book = CountedBook

    def longer(self, one: Book, other: Book) -> str | None:
        first, second = len(one.text()), len(other.text())
        return None if first == second else (one if first > second else other).title()

    def same(self, entries: list[Any]) -> list[Any]:
        return entries

    def back(self, data: bytes) -> bytes:
        return data

    def fail(self) -> None:
        raise RuntimeError("the shelf is gone")

    def end(self) -> None:
        os._exit(3)

    def wait(self) -> None:
        time.sleep(3600)

    def take(self, title: str) -> Any:
        """A book, or what is none."""
        return _WRONG[title] if title in _WRONG else super().take(title)


_WRONG: dict[str, Any] = {
    "number": 5,
    "nothing": None,
    "text": "Emma",
    "case": Err(Case("lent")),
    "payload": Err(Case("unknown", 5)),
    "set": Err({"full"}),
}


class Later:
    """The interface ``acme:things/later``: two ask, and both are answered once they have."""

    def __init__(self, _invocation: Invocation) -> None:
        self._asked: list[str] = []
        self._both = anyio.Event()

    async def greet(self, name: str) -> str:
        self._asked.append(name)
        if len(self._asked) == 2:
            self._both.set()
        await self._both.wait()
        if not name:
            raise Err("nobody")
        return f"hello, {name}"


class Flows:
    """The interface ``acme:things/flows``."""

    def __init__(self, _invocation: Invocation) -> None:
        self._closed = 0

    def entries(self) -> tuple[Stream, Future]:
        entry = {
            "title": "Emma",
            "pages": 300,
            "at": Case("row", (7, "ü")),
            "mood": "wild",
            "marks": ["read", "torn"],
            "weight": 0.5,
            "depth": -3,
            "raw": b"\0\xff",
            "rows": [(1, 1 << 40), (2, 3)],
            "went": Err("not far"),
        }
        other = {**entry, "title": "", "pages": None, "at": Case("room", "attic"), "marks": [], "went": 9}
        last = {**entry, "title": "last", "at": Case("nowhere")}

        async def end() -> object:
            return last

        return Stream(iter([[entry, other], [], [entry]])), Future(end)

    def bytes(self, count: int) -> Stream:
        return self._counted(bytes(range(250)) * 4 for _ in range(0, count, 1000))

    def books(self) -> Stream:
        return Stream(iter([[Book("one"), Book("two")], [Book("three")]]))

    def nested(self) -> Stream:
        return Stream([Stream(iter([[letter] * 2]))] for letter in "ab")

    def nothing(self) -> tuple[Stream, Future]:
        return self._counted(iter(self._wait, None)), Future(self._wait)

    def _wait(self) -> Any:
        wait_for(anyio.sleep_forever)

    def wrong(self) -> Stream:
        return Stream(iter([["a text"]]))

    def breaks(self) -> Stream:
        return Stream([1 // (2 - number)] for number in range(5))

    def closed(self) -> int:
        return self._closed

    def _counted(self, pieces: Iterator[Any]) -> Stream:
        return Stream(_Counted(self, pieces))

    def count(self) -> None:
        self._closed += 1


class _Counted(Iterator[Any]):
    """Pieces, and who is told that no more are asked for."""

    def __init__(self, of: Flows, pieces: Iterator[Any]) -> None:
        self._of, self._pieces = of, pieces

    def __next__(self) -> Any:
        return next(self._pieces)

    def close(self) -> None:
        self._of.count()


def _redis(_invocation: Invocation) -> Redis:
    assert _CLIENTS
    return Redis(_CLIENTS[0], AllowedHosts(["redis://127.0.0.1:*"], "here"))


_CLIENTS: list[Clients] = []


class MoreThingsEngine(ThingsEngine):
    name: ClassVar[str] = "more-things"
    provides: ClassVar[Mapping[str, Callable[[Invocation], object]]] = {
        "acme:things/shelf@1.2.0": MoreShelf,
        "acme:things/later": Later,
        "acme:things/flows": Flows,
        "fermyon:spin/redis@2.0.0": _redis,
    }

    def warm(self) -> None:
        _CLIENTS.append(Clients(["redis"], Trust(BuiltIn(), {})))
        super().warm()
