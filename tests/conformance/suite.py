"""The cases: a guest each, how it runs and what it must do; and which of them are known to fail, and why."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests import wasmer
from tests.wasmtimes import HOSTS

HERE = Path(__file__).parent
GUESTS = HERE / "guests"
#: What guests with ``root`` see as ``/``, in a copy of their own.
FIXTURE = HERE / "fixture"
#: By name; wasmtime's are its hosts, wasmer's its two bindings, of both of which the first is built by cargo.
ENGINES = (*HOSTS, "wasmedge", "wasmer", "wasmer-sdk")


@dataclass(frozen=True)
class Case:
    """One test."""

    group: str
    name: str
    source: Path
    define: str | None = None
    """A macro that the source is compiled with."""
    engines: Sequence[str] = ENGINES
    """Those that it runs on."""
    root: bool = False
    """Whether it may open ``/``, a copy of the fixture."""
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    exit_code: int = 0
    stdout: str | None = None
    """What it must print; ``None``: anything."""

    @property
    def about(self) -> str:
        """What it checks, in a sentence: the comment that its source starts with."""
        comment = self.source.read_text().partition("/*")[2].partition("*/")[0]
        return " ".join(comment.split())

    def __str__(self) -> str:
        return f"{self.group}/{self.name}"


@dataclass(frozen=True)
class Known:
    """A failure that is known."""

    where: str
    """Whose it is: the engine's, its binding's, shimd's or the specification's."""
    reason: str


@cache
def titles() -> dict[str, str]:
    """What each group of cases is called, in the order of ``cases.toml``."""
    return {name: settings["title"] for name, settings in _read("cases.toml").items()}


@cache
def cases() -> tuple[Case, ...]:
    """All, by group and name.

    :raises FileNotFoundError: ``cases.toml`` speaks of one that has no source
    """
    return tuple(case for group in titles() for case in _group(group))


@cache
def known_failures(engine: str) -> dict[str, Known]:
    """Why each case that fails does so, by the case's text; from ``expected.toml``."""
    found: dict[str, Known] = {}
    for table in _read("expected.toml").get(engine, []):
        known = Known(table["where"], " ".join(table["reason"].split()))
        found |= dict.fromkeys(table["tests"], known)
    return found


def runs() -> list[tuple[Case, str]]:
    """Each case with each of its engines, as far as they are installed."""
    there = [engine for engine in ENGINES if engine in (*HOSTS, "wasmedge", *wasmer.BINDINGS)]
    return [(case, engine) for engine in there for case in cases() if engine in case.engines]


def _group(group: str) -> Iterator[Case]:
    settings = _read("cases.toml")[group]
    common = {key: settings[key] for key in ("define", "engines") if key in settings}
    original = settings.get("repeats", group)
    special = _read("cases.toml")[original].get("tests", {})
    root = _read("cases.toml")[original].get("root", False)
    sources = {source.stem: source for source in sorted((GUESTS / original).glob("*.c"))}
    if missing := special.keys() - sources.keys():
        raise FileNotFoundError(f"cases.toml: no source in guests/{original} for {', '.join(missing)}")
    for name, source in sources.items():
        case = Case(group, name, source, **{"root": root, **common, **special.get(name, {})})
        if case.root or group == original:
            yield case


@cache
def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((HERE / name).read_text())
