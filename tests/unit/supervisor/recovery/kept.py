"""A keeper of descriptors within the process."""

import os
from collections.abc import Sequence

from shimd.linux import fifo


class KeptInMemory:
    """Keeps duplicates of what it is given.

    :ivar faults: names whose descriptors were closed before they were dropped: the real one's client, which has their
        numbers, would give others' to the next keeper under those names
    """

    def __init__(self) -> None:
        self.kept: dict[str, list[int]] = {}
        self.faults: list[str] = []
        self._held: dict[str, Sequence[int]] = {}

    def keep(self, name: str, fds: Sequence[int]) -> None:
        duplicates = [os.dup(fd) for fd in fds]
        self.drop(name)
        self.kept[name], self._held[name] = duplicates, tuple(fds)

    keep_soon = keep

    async def hold(self, name: str, inputs: Sequence[int], outputs: Sequence[int]) -> bool:
        held, all_read = fifo.hold(inputs, outputs)
        self.drop(name)
        self.kept[name], self._held[name] = held, tuple(held)
        return all_read

    def held(self, name: str, fds: Sequence[int]) -> None:
        assert name in self.kept

    def drop(self, name: str) -> None:
        kept, held = self.kept.pop(name, []), self._held.pop(name, [])
        if not all(map(_are_one, kept, held)):
            self.faults.append(name)
        for fd in kept:
            os.close(fd)

    def take(self, name: str) -> list[int] | None:
        if name not in self.kept:
            return None
        taken = self._held[name] = [os.dup(fd) for fd in self.kept[name]]
        return list(taken)

    def drop_untaken(self) -> None:
        pass

    def close(self) -> None:
        """Whoever had them is gone."""
        self._held.clear()
        for name in list(self.kept):
            self.drop(name)


def _are_one(fd: int, other: int) -> bool:
    try:
        return os.path.sameopenfile(fd, other)
    except OSError:
        return False
