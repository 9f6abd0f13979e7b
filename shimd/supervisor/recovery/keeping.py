"""What connections and events want of the keeper (``supervisor/recovery/keeper.py``)."""

from collections.abc import Mapping, Sequence
from typing import Protocol


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

    def keep(self, name: str, fds: Sequence[int]) -> None:
        pass

    def drop(self, name: str) -> None:
        pass

    def take(self, name: str) -> list[int] | None:
        return None

    def drop_untaken(self) -> None:
        pass
