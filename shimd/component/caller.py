"""Who calls a host's function, as far as waiting goes: a guest in this process, or a call that came over a bridge."""

from contextlib import AbstractContextManager
from typing import Protocol

import anyio

from shimd.component.current import Current


class ComputeLease(Protocol):
    """A guest's permission to compute, which it gives up while it waits."""

    def acquire(self) -> None: ...

    def release(self) -> None: ...


class Caller:
    def __init__(self) -> None:
        self.lease: ComputeLease | None = None
        """The guest's permission to compute, which is released while it waits; ``None``: it needs none."""
        self.waiting: anyio.CancelScope | None = None
        """The wait that is under way, to be cancelled (:mod:`shimd.wasi.waiting`)."""
        self.abandoned = False
        """True once nobody needs the answer: its waits end at once."""

    def abandon(self) -> None:
        """End its waiting, now and later; called in the event loop."""
        self.abandoned = True
        if self.waiting is not None:
            self.waiting.cancel()

    def entered(self) -> AbstractContextManager[None]:
        """Make it the current one of this thread for the length of the block."""
        return caller.entered(self)


caller: Current[Caller] = Current()
