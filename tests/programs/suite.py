"""The programs: where each is from, its task, and what must come of it on each engine."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests import wasmer

HERE = Path(__file__).parent
#: By name; wasmer's are its two bindings, of which the first is built by cargo.
ENGINES = ("wasmtime", "wasmer", "wasmer-sdk", "wasmedge")

#: Why large programs are not tried there.
WITHOUT_LARGE = {
    "wasmer-sdk": "the native binding shows what wasmer does with programs of many megabytes",
    "wasmedge": "its LLVM takes most of a minute of processor time for each megabyte of a program",
}


@dataclass(frozen=True)
class Expected:
    """What a run must give. What is empty or ``None`` is not looked at."""

    stdout: str | None = None
    stdout_has: Sequence[str] = ()
    stderr_has: Sequence[str] = ()
    code: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    """Of files that the program makes, by name, the content: text, or ``hex:`` or ``sha256:`` and digits, or
    ``begins:`` and its first characters."""
    answers: Sequence[str] = ()
    """A server's, to each request: the status, a space, and the body."""


@dataclass(frozen=True)
class Program:
    """One program with its task."""

    name: str
    what: str
    """What it is, in a few words."""
    source: Mapping[str, str]
    """Where it is from (``fetch.py``)."""
    task: str
    verified: str
    """How it is known what must come of the task."""
    expected: Expected
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: str | None = None
    requests: Sequence[str] = ()
    """What a server is asked: method, path and body, with a space between; then it is told to end."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Of the volume at ``/files``: names and texts."""
    extras: Mapping[str, str] = field(default_factory=dict)
    """Of the image: absolute paths, and where the package has the file."""
    engines: Mapping[str, str] = field(default_factory=dict)
    """Of engines on which it does not run: the sentence that it is refused with."""
    quick: bool = False
    """Whether it is in ``make test``."""
    slow: Sequence[str] = ()
    """Engines on which it is not, though."""
    large: bool = False
    """Whether it is tried on few engines (:data:`WITHOUT_LARGE`)."""

    @property
    def package(self) -> str:
        """Name and version."""
        return next(iter(self.source.values()))

    @property
    def left_out(self) -> Mapping[str, str]:
        """Of engines on which it is not tried: why."""
        return WITHOUT_LARGE if self.large else {}

    @property
    def writes(self) -> bool:
        return bool(self.expected.files)

    def expected_on(self, engine: str) -> Expected:
        refusal = self.engines.get(engine)
        return Expected(stderr_has=[refusal], code=1) if refusal else self.expected

    def __str__(self) -> str:
        return self.name


@cache
def programs() -> tuple[Program, ...]:
    """All, in the order of ``programs.toml``."""
    tables = tomllib.loads((HERE / "programs.toml").read_text())
    return tuple(_program(name, table) for name, table in tables.items())


def _program(name: str, table: dict[str, Any]) -> Program:
    return Program(name, **table | {"expected": Expected(**table.get("expected", {}))})


def runs(quick_only: bool = False) -> list[tuple[Program, str]]:
    """Each program with each engine that it is tried on, as far as they are installed."""
    there = [engine for engine in ENGINES if engine in ("wasmtime", "wasmedge", *wasmer.BINDINGS)]
    return [
        (program, engine)
        for engine in there
        for program in programs()
        if engine not in program.left_out and (not quick_only or (program.quick and engine not in program.slow))
    ]
