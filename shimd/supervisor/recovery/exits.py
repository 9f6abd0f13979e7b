"""Exits that a keeper tells of, until somebody has made use of them."""

from dataclasses import dataclass, field

from shimd.protocol.keeper import MAX_EXITS


@dataclass
class Exits:
    """The newest of them, as many as the keeper has.

    A start of 0 is one that there was no memory to learn of: it stands for any.
    """

    _exits: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    def note(self, pid: int, start: int, status: int, at: int) -> None:
        self._exits[pid, start] = status, at
        if len(self._exits) > MAX_EXITS:
            self.forget(*next(iter(self._exits)))

    def of(self, pid: int, start: int) -> tuple[int, int] | None:
        """Wait status and nanoseconds since the epoch of a process that has ended."""
        return self._exits.get((pid, start)) or self._exits.get((pid, 0))

    def all(self) -> list[tuple[int, int]]:
        """Pids, and when these processes were started."""
        return list(self._exits)

    def forget(self, pid: int, start: int) -> bool:
        """Returns whether there was one to forget."""
        return self._exits.pop((pid, start), None) is not None
