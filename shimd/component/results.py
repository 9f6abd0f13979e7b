"""Results of interfaces' functions besides plain values, and how a guest may end: for hosts of either ABI."""

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


class GuestExit(BaseException):
    """The guest ends by its own wish. No ``Exception``: no host function on the way may take it for a failure."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code & 0xFF
        """The exit code, 0 to 255, as wait(2) reports it."""


class Abandoned(Exception):
    """Nobody waits for this guest's answer any more: it took too long, or the app ends."""
