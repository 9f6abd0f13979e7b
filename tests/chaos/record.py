"""What happened: every call with its result, every event, every strike, and what was seen at each look."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.chaos.plan import Life

#: Instead of a gRPC code: there was no answer in time.
HUNG = "HUNG"


@dataclass(frozen=True)
class Call:
    """Times are microseconds since 1970, here and everywhere in a record."""

    container: str
    exec_id: str
    method: str
    step: str
    """Of the plan, for people."""
    begin: int
    end: int
    error: str = ""
    """The gRPC code's name, or ``HUNG``; empty: it was answered."""
    message: str = ""
    result: Mapping[str, int] = field(default_factory=dict)
    """pid, code and at (of the exit), as far as the answer has them; of a Kill its signal."""


@dataclass(frozen=True)
class Event:
    """One of containerd's, in the order in which it told them."""

    topic: str
    container: str
    process: str
    """Of an exit: who, an exec or the container itself; of exec-added and exec-started the exec."""
    pid: int = 0
    code: int = 0
    at: int = 0
    """Of an exit."""


@dataclass(frozen=True)
class Struck:
    """A strike that found somebody."""

    number: int
    part: str
    act: str
    pid: int
    begin: int
    end: int

    @property
    def starves(self) -> bool:
        return self.act in ("NOFILE", "MEMORY", "DISK")


@dataclass(frozen=True)
class Attempt:
    """A container that was asked for; a life has another, by another id, where a Create failed."""

    life: Life
    container: str
    output: bytes | None = None
    """Of its init; None: nobody looked."""
    stopped: bool = False
    """It was over when the run was."""


@dataclass(frozen=True)
class Look:
    """One container at one moment, at which nothing was asked of it: RUNNING, PAUSED or STOPPED, or gone."""

    container: str
    at: int
    expected: str
    containerd: str
    shimd: str
    alive: bool
    """The kernel has its process."""


@dataclass
class Record:
    attempts: list[Attempt] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    strikes: list[Struck] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    """Sentences on what was left of all of it at the end."""

    def calls_of(self, container: str, exec_id: str | None = None) -> list[Call]:
        return [
            call for call in self.calls if call.container == container and (exec_id is None or call.exec_id == exec_id)
        ]

    def save(self, path: Path) -> None:
        """As JSON, an entry a line."""
        kinds: dict[str, Iterable[Call | Event | Struck | Look]] = {
            "call": self.calls,
            "event": self.events,
            "strike": self.strikes,
            "look": self.looks,
        }
        lines = [json.dumps({"kind": kind, **asdict(entry)}) for kind, found in kinds.items() for entry in found]
        path.write_text("".join(line + "\n" for line in [*lines, *map(json.dumps, self.leftovers)]))
