"""A shim whose guests have a shelf of books, besides WASI."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from shimd.shim import Case, Err, Invocation, NativeComponents


class Book:
    """The resource ``book``: an object of this class is what a guest has a handle of."""

    def __init__(self, title: str) -> None:
        self._title, self._text = title, b""

    def title(self) -> str:
        return self._title

    def write(self, text: bytes) -> int:
        self._text += text
        return len(self._text)

    def text(self) -> bytes:
        return self._text

    def close(self) -> None:
        """Called when the guest has dropped it, or has ended."""


class Shelf:
    """The interface ``acme:things/shelf``."""

    def __init__(self, invocation: Invocation) -> None:
        self.Book: type[Book] = Book
        self._size = int(invocation.env.get("SHELF_SIZE", "100"))
        self._books: dict[str, Book] = {}

    def put(self, it: Book, at: Case) -> None:
        if at.tag == "nowhere" or len(self._books) == self._size:
            raise Err(Case("full"))
        self._books[it.title()] = it

    def take(self, title: str) -> Book:
        if title not in self._books:
            raise Err(Case("unknown", title))
        return self._books.pop(title)

    async def greet(self, name: str) -> str:
        return f"hello, {name}"


class ThingsEngine(NativeComponents):
    name: ClassVar[str] = "things"
    provides: ClassVar[Mapping[str, Callable[[Invocation], object]]] = {"acme:things/shelf": Shelf}
