"""The cases: a guest each, how it runs and what it must do; and which of them are known to fail, and why."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from shimd.engines.wasmtime import NATIVE
from tests import wasmer
from tests.wasmtimes import HOSTS

HERE = Path(__file__).parent
GUESTS = HERE / "guests"
#: Those of components: of a crate each, which has one for each of ``cases/``.
CRATES = HERE.parent / "components/rust/conformance"
#: By name; wasmtime's are its hosts, wasmer's its two bindings, of both of which the first is built by cargo.
ENGINES = (*HOSTS, "wasmedge", "wasmer", "wasmer-sdk")


@dataclass(frozen=True)
class Request:
    """What a server is asked, and what it must answer."""

    path: str = "/"
    method: str = "GET"
    sent: Mapping[str, str] = field(default_factory=dict)
    """Headers."""
    sent_body: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the answer, among others."""
    body: str = ""


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
    native: bool = False
    """Whether wasmtime's native host alone runs it."""
    root: bool = False
    """Whether it may open ``/``, a copy of the fixture."""
    fixture: str = "fixture"
    network: bool = False
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    exit_code: int = 0
    stdout: str | None = None
    """What it must print; ``None``: anything."""
    stderr: str | None = None
    stdin: str = ""
    prompt: str = ""
    """What it prints before it is given stdin."""
    echo: str = ""
    """What is sent to the address that it prints, and must come back."""
    requests: Sequence[Mapping[str, Any]] = ()
    """Of a server: what it is asked, in terms of :class:`Request`."""

    @property
    def about(self) -> str:
        """What it checks, in a sentence: the comment that its source starts with."""
        text = self.source.read_text()
        if self.crate is None:
            comment = text.partition("/*")[2].partition("*/")[0]
        else:
            lines = takewhile(lambda line: line.startswith("//! "), text.splitlines())
            comment = " ".join(line.removeprefix("//! ") for line in lines)
        return " ".join(comment.split())

    @property
    def crate(self) -> str | None:
        """That it is in a component of; ``None``: it is a module."""
        return self.source.parents[2].name if self.source.suffix == ".rs" else None

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
    there_too = [case for case in cases() if NATIVE or not case.native]
    return [(case, engine) for engine in there for case in there_too if engine in case.engines]


def _group(group: str) -> Iterator[Case]:
    settings = _read("cases.toml")[group]
    common = {key: settings[key] for key in ("define", "engines", "native", "fixture") if key in settings}
    original = settings.get("repeats", group)
    special = _read("cases.toml")[original].get("tests", {})
    root = _read("cases.toml")[original].get("root", False)
    sources = dict(_sources(original))
    if missing := special.keys() - sources.keys():
        raise FileNotFoundError(f"cases.toml: no source of {original} for {', '.join(missing)}")
    for name, source in sources.items():
        case = Case(group, name, source, **{"root": root, **common, **special.get(name, {})})
        if case.root or group == original:
            yield case


def _sources(group: str) -> Iterator[tuple[str, Path]]:
    for source in sorted((GUESTS / group).glob("*.c")):
        yield source.stem, source
    for crate in _read("cases.toml")[group].get("crates", []):
        for source in sorted((CRATES / crate / "src/cases").glob("*.rs")):
            if source.stem != "mod":
                yield source.stem.replace("_", "-"), source


@cache
def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((HERE / name).read_text())
