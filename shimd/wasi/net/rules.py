"""What sockets may be used for: everything, unless who gives them has rules."""

from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from shimd.component.results import Err


class Use(Enum):
    """Of an address: one's own for the first two, another's for the others."""

    BIND = auto()
    LISTEN = auto()
    TCP = auto()
    UDP = auto()


Permits = Callable[[Use, str, int], bool]
"""By a use, and an address as text with its port."""


def everything(_use: Use, _host: str, _port: int) -> bool:
    return True


def check(permits: Permits, use: Use, address: tuple[Any, ...]) -> None:
    """
    :param address: as :mod:`socket` has it
    :raises Err: ``access-denied``
    """
    if not permits(use, address[0], address[1]):
        raise Err("access-denied")
