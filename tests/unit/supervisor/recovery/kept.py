"""A keeper of descriptors within the process."""

import os
from collections.abc import Sequence


class KeptInMemory:
    """Keeps duplicates of what it is given."""

    def __init__(self) -> None:
        self.kept: dict[str, list[int]] = {}

    def keep(self, name: str, fds: Sequence[int]) -> None:
        duplicates = [os.dup(fd) for fd in fds]
        self.drop(name)
        self.kept[name] = duplicates

    def drop(self, name: str) -> None:
        for fd in self.kept.pop(name, []):
            os.close(fd)

    def take(self, name: str) -> list[int] | None:
        if name not in self.kept:
            return None
        return [os.dup(fd) for fd in self.kept[name]]

    def drop_untaken(self) -> None:
        pass
