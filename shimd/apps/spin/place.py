"""Where an application is: at the root of its container, or in a directory of this machine."""

import os
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    read: Callable[[str], bytes | None]
    """A function that reads a file; ``None``: it is not there."""
    root: str = "/"
    """The directory that the paths of manifests are relative to."""

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def file(self, name: str) -> bytes | None:
        """Returns what a file has that a manifest names; ``None``: it is not there."""
        return self.read(self.path(name))
