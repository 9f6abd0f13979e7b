"""The parts of a guest that values need: its memory, its allocator, and its handles of the host's objects."""

from typing import Any, Protocol


class Fault(Exception):
    """The guest broke the ABI: an address beyond its memory, a case or handle that is none. A trap."""


class Memory(Protocol):
    """A guest's linear memory and allocator."""

    def read(self, address: int, size: int) -> bytes:
        """:raises Fault: it reaches beyond the memory"""
        ...

    def write(self, address: int, data: bytes) -> None:
        """:raises Fault: it reaches beyond the memory"""
        ...

    def allocate(self, size: int, align: int) -> int:
        """Allocate memory that the guest will own (``canonical_abi_realloc``); also of size 0."""
        ...

    @property
    def handles(self) -> "Handles":
        """The handles of the host's objects."""
        ...


class Handles:
    """The handles of one instance, by the resource's name, since each resource has numbers of its own."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[int, Any]] = {}
        self._next = 0

    def add(self, resource: str, thing: Any) -> int:
        number, self._next = self._next, self._next + 1
        self._tables.setdefault(resource, {})[number] = thing
        return number

    def get(self, resource: str, number: int) -> Any:
        """:raises Fault: there is none"""
        try:
            return self._tables[resource][number]
        except KeyError:
            raise Fault(f"{number} is no handle of a {resource}") from None

    def clone(self, resource: str, number: int) -> int:
        """``resource_clone_…``: another handle of the same object."""
        return self.add(resource, self.get(resource, number))

    def drop(self, resource: str, number: int) -> None:
        """``resource_drop_…``"""
        self.get(resource, number)
        del self._tables[resource][number]
