"""Where an application is: at the root of its container, or in a directory of this machine."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from shimd.engine import InvalidSetting


@dataclass(frozen=True)
class Place:
    read: Callable[[str], bytes | None]
    """A function that reads a file; ``None``: it is not there, IsADirectoryError: it is a directory."""
    root: str = "/"
    """The directory that the paths of manifests are relative to."""

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def file(self, name: str) -> bytes | None:
        """Returns what a file has that a manifest names; ``None``: it is not there.

        :raises InvalidSetting: it is a directory
        """
        path = self.path(name)
        try:
            return self.read(path)
        except IsADirectoryError:  # by the kubelet, from an optional Secret: what it should say would be lost silently
            cause = "Kubernetes makes one of a file (subPath) whose Secret or ConfigMap is not there"
            raise InvalidSetting(f"{path} is a directory: {cause}") from None

    def contents(self, path: str) -> bytes | None:
        """Returns what a file has that may be a directory, too; ``None``: it is one, or not there."""
        try:
            return self.read(path)
        except IsADirectoryError:
            return None
