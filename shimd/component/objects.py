"""The host's objects that a guest holds handles of."""

from itertools import count
from typing import Any


class Objects:
    """By number. Those of one guest may be used by several threads."""

    def __init__(self) -> None:
        self.table: dict[int, Any] = {}
        self._numbers = count(1)

    def add(self, thing: Any) -> int:
        """Put an object into the table and return its number there."""
        number = next(self._numbers)
        self.table[number] = thing
        return number

    def remove(self, number: int) -> Any:
        """Remove an object from the table and return it: the guest has handed over its handle."""
        return self.table.pop(number)

    def drop(self, number: int) -> None:
        """Remove and close an object: the guest has dropped its last handle."""
        close(self.table.pop(number, None))

    def close_all(self) -> None:
        """Close all of them."""
        for thing in self.table.values():
            close(thing)
        self.table.clear()


def close(thing: Any) -> None:
    """Close an object, if it has a method ``close``."""
    if (method := getattr(thing, "close", None)) is not None:
        method()
