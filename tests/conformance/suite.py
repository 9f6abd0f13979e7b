"""The cases: a guest each, how it runs and what it must do; and which of them are known to fail, and why."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
GUESTS = HERE / "guests"
#: What guests with ``root`` see as ``/``, in a copy of their own.
FIXTURE = HERE / "fixture"
#: In the order of the report.
GROUPS = ("assemblyscript", "c", "rust")
ENGINES = ("wasmtime", "wasmer")


@dataclass(frozen=True)
class Case:
    """One test."""

    group: str
    name: str
    root: bool = False
    """Whether it may open ``/``, a copy of the fixture."""
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    exit_code: int = 0
    stdout: str | None = None
    """What it must print; ``None``: anything."""

    @property
    def source(self) -> Path:
        return GUESTS / self.group / f"{self.name}.c"

    def __str__(self) -> str:
        return f"{self.group}/{self.name}"


def cases() -> list[Case]:
    """All, by group and name.

    :raises ValueError: ``cases.toml`` speaks of one that has no source
    """
    settings = tomllib.loads((HERE / "cases.toml").read_text())
    found: list[Case] = []
    for group in GROUPS:
        special = settings[group].get("tests", {})
        for source in sorted((GUESTS / group).glob("*.c")):
            found.append(Case(group, source.stem, **{"root": settings[group]["root"], **special.pop(source.stem, {})}))
        if special:
            raise ValueError(f"cases.toml: no source in guests/{group} for {', '.join(special)}")
    return found


def expected_failures(engine: str) -> dict[str, str]:
    """Why each case that fails does so, by the case's text; from ``expected.toml``."""
    tables = tomllib.loads((HERE / "expected.toml").read_text()).get(engine, [])
    return {name: " ".join(table["reason"].split()) for table in tables for name in table["tests"]}
