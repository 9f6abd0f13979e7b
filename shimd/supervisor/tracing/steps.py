"""Steps of what the daemon does, for who follows it; nobody does, unless :func:`follow` says so."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shimd.rpc import Implementation

Traced = Callable[[str, str, "Implementation"], "Implementation"]
"""Returns what is to be served in place of an engine's Task service, for a namespace."""
Step = Callable[[str, dict[str, str | int]], AbstractContextManager[None]]


def _nobody(_name: str, _told: dict[str, str | int]) -> AbstractContextManager[None]:
    return nullcontext()


_step: Step = _nobody


def untraced(_engine: str, _namespace: str, service: "Implementation") -> "Implementation":
    return service


def step(name: str, **told: str | int) -> AbstractContextManager[None]:
    """Around a step; of an error that leaves it is told, too.

    :param told: what else is to be known of it
    """
    return _step(name, told)


def follow(follower: Step) -> None:
    """Have steps told from now on."""
    global _step
    _step = follower


def forget() -> None:
    """Have nobody follow."""
    follow(_nobody)
