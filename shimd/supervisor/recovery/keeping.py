"""What connections and events want of the keeper (``supervisor/recovery/keeper.py``)."""

import os
from collections.abc import Mapping, Sequence
from typing import Protocol

from shimd.linux import fifo


class Keeping(Protocol):
    """Descriptors by name, kept for a successor of ours."""

    @property
    def kept(self) -> Mapping[str, Sequence[int]]:
        """What an earlier supervisor left, and nobody has taken yet."""
        ...

    def keep(self, name: str, fds: Sequence[int]) -> None:
        """Keep these descriptors under the name, in place of those that were. They stay ours, and open until
        :meth:`drop`."""
        ...

    def keep_soon(self, name: str, fds: Sequence[int]) -> None:
        """The same, from the next moment on: what is dropped by then costs nothing."""
        ...

    async def hold(self, name: str, inputs: Sequence[int], outputs: Sequence[int]) -> bool:
        """Hold FIFOs open until :meth:`drop`, from before the caller opens them: the other end takes their being closed
        by our death for the end.

        :param inputs: descriptors of their paths (:func:`shimd.linux.fifo.find`), of those to be read from
        :param outputs: of those to be written to
        :returns: whether somebody reads all outputs, as far as is known
        """
        ...

    def held(self, name: str, fds: Sequence[int]) -> None:
        """What is held so has these of the caller's, too, until :meth:`drop`, if it has to be kept anew."""
        ...

    def drop(self, name: str) -> None: ...

    def take(self, name: str) -> list[int] | None:
        """Descriptors of an earlier supervisor's, ours to close; they stay kept."""
        ...

    def drop_untaken(self) -> None:
        """Keep no longer what an earlier supervisor left and nobody has taken."""
        ...


class NotKept:
    """Nobody keeps anything: a supervisor's death is the end of its connections."""

    kept: Mapping[str, Sequence[int]] = {}

    def __init__(self) -> None:
        self._held: dict[str, list[int]] = {}

    async def hold(self, name: str, inputs: Sequence[int], outputs: Sequence[int]) -> bool:
        held, all_read = fifo.hold(inputs, outputs)
        self.drop(name)
        self._held[name] = held
        return all_read

    def held(self, name: str, fds: Sequence[int]) -> None:
        pass

    def keep(self, name: str, fds: Sequence[int]) -> None:
        pass

    keep_soon = keep

    def drop(self, name: str) -> None:
        for fd in self._held.pop(name, ()):
            os.close(fd)

    def take(self, name: str) -> list[int] | None:
        return None

    def drop_untaken(self) -> None:
        pass
