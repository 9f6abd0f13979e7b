"""Stopping all processes of a cgroup where they are (cgroup-v1/freezer-subsystem.rst; cgroup-v2.rst, cgroup.freeze)."""

import time

from shimd.cgroup.files import flat_keyed, read, write
from shimd.errors import FailedPrecondition

_TIMEOUT = 2.0


class V1:
    def __init__(self, directory: str) -> None:
        self._file = directory + "/freezer.state"

    def ask(self, frozen: bool) -> None:
        write(self._file, "FROZEN" if frozen else "THAWED")

    def is_frozen(self) -> bool:
        """Returns whether all stand still; else asks anew, for processes that were just being forked (``FREEZING``)."""
        state = read(self._file)
        if state == "FREEZING":
            self.ask(True)
        return state == "FROZEN"


class V2:
    def __init__(self, directory: str) -> None:
        self._directory = directory

    def ask(self, frozen: bool) -> None:
        write(self._directory + "/cgroup.freeze", "1" if frozen else "0")

    def is_frozen(self) -> bool:
        return flat_keyed(read(self._directory + "/cgroup.events")).get("frozen") == 1


def freeze(freezer: V1 | V2) -> None:
    """Stop all processes; returns when none runs any more.

    :raises FailedPrecondition: one does not (it is in an uninterruptible wait); all run again then
    """
    deadline = time.monotonic() + _TIMEOUT
    freezer.ask(True)
    while not freezer.is_frozen():
        if time.monotonic() > deadline:
            freezer.ask(False)
            raise FailedPrecondition(f"a process of the container could not be frozen within {_TIMEOUT:g} s")
        time.sleep(0.001)
