"""What is measured while it happens: by whoever does it, and for nobody, unless there is somebody to ask."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shimd.rpc import Implementation


class Measures:
    """Measures nothing."""

    def calls(self, engine: str, service: "Implementation") -> "Implementation":
        """Returns what is to be served in place of an engine's Task service."""
        return service

    def compiling(self, engine: str) -> AbstractContextManager[None]:
        """Around a compilation that has begun."""
        return nullcontext()

    def forked(self, engine: str, seconds: float) -> None:
        """A fork server has made a worker, so long after it was asked for."""


NOTHING = Measures()
