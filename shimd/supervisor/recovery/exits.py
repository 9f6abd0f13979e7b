"""Exits that a keeper tells of, until somebody has made use of them."""

from dataclasses import dataclass, field

import anyio

from shimd.errors import Unavailable
from shimd.protocol.keeper import MAX_EXITS


@dataclass
class Exits:
    """The newest of them, as many as the keeper has.

    A start of 0 is one that there was no memory to learn of: it stands for any.
    """

    _exits: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    _newest: dict[int, int] = field(default_factory=dict)
    """The start of the newest of a pid's."""
    _changed: dict[int, anyio.Event] = field(default_factory=dict)
    """Pids that somebody waits for."""
    _lost: set[int] = field(default_factory=set)
    """Of these, those of which nobody will tell."""

    def note(self, pid: int, start: int, status: int, at: int) -> None:
        self._exits[pid, start] = status, at
        self._newest[pid] = start
        if len(self._exits) > MAX_EXITS:
            self.forget(*next(iter(self._exits)))
        self._wake(pid)

    def of(self, pid: int, start: int) -> tuple[int, int] | None:
        """Wait status and nanoseconds since the epoch of a process that has ended."""
        return self._exits.get((pid, start)) or self._exits.get((pid, 0))

    def all(self) -> list[tuple[int, int]]:
        """Pids, and when these processes were started."""
        return list(self._exits)

    def newest(self, pid: int) -> tuple[int, int] | None:
        """The same of the last process that had a pid."""
        start = self._newest.get(pid)
        return None if start is None else self._exits[pid, start]

    def forget(self, pid: int, start: int) -> None:
        self._exits.pop((pid, start), None)
        if self._newest.get(pid) == start:
            del self._newest[pid]

    async def wait(self, pid: int, start: int | None) -> tuple[int, int]:
        """Wait for an exit.

        :param start: ``None``: of whatever process has the pid
        :raises Unavailable: nobody will tell
        """
        while (found := self.newest(pid) if start is None else self.of(pid, start)) is None:
            await self._changed.setdefault(pid, anyio.Event()).wait()
            if pid in self._lost and self.newest(pid) is None:
                raise Unavailable(f"the keeper was killed, and how process {pid} ends cannot be known from it")
        return found

    def lose(self) -> None:
        """Their teller is gone: what is waited for now will not be told."""
        self._lost = set(self._changed)
        for pid in list(self._changed):
            self._wake(pid)

    def _wake(self, pid: int) -> None:
        if (changed := self._changed.pop(pid, None)) is not None:
            changed.set()
