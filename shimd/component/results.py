"""Results of interfaces' functions, besides plain values: the vocabulary of hosts, whatever their ABI."""

from dataclasses import dataclass
from typing import Any, NamedTuple


class Case(NamedTuple):
    """A variant's case."""

    tag: str
    payload: Any = None


@dataclass(frozen=True)
class Ok:
    value: Any = None


class Err(Exception):
    """``result``'s error case. Raised by a host function it is the function's result; it is no trap."""

    def __init__(self, value: Any = None) -> None:
        super().__init__(value)
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Err) and other.value == self.value

    __hash__ = Exception.__hash__
