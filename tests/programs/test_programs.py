"""Each program on each engine, under containerd; the quick ones, or with ``SHIMD_TEST_PROGRAMS=1`` all."""

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import trixie
from tests.programs import fetch, report
from tests.programs.__main__ import DOCUMENT
from tests.programs.runner import Outcome, outcomes
from tests.programs.suite import ENGINES, Program, programs, runs

QUICK_ONLY = not os.environ.get("SHIMD_TEST_PROGRAMS")
RUNS = [pytest.param((program, engine), id=f"{engine}-{program}") for program, engine in runs(QUICK_ONLY)]
Outcomes = dict[tuple[str, str], Outcome]


@pytest.fixture(scope="module")
def done(request: pytest.FixtureRequest) -> Outcomes:
    """What came of all runs that were asked for, by program and engine."""
    if os.geteuid() != 0:
        pytest.skip("containerd needs root")
    asked = list(_asked_for(request.session.items))
    made = [
        outcome
        for engine in ENGINES
        if trixie.where(engine) is not None and any(engine == it for _program, it in asked)
        for outcome in outcomes(engine, [program for program, it in asked if it == engine])
    ]
    return {(outcome.name, outcome.engine): outcome for outcome in made}


def _asked_for(items: list[pytest.Item]) -> Iterator[tuple[Program, str]]:
    for item in items:
        if isinstance(item, pytest.Function) and item.originalname == test_program.__name__:
            run: Any = item.callspec.params["run"]
            yield run


# What all of them take is the first's time: the fixture's.
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("run", RUNS)
def test_program(run: tuple[Program, str], done: Outcomes) -> None:
    program, engine = run
    if trixie.where(engine) is None:
        pytest.skip(f"{engine} cannot run here, and there is no tree of Debian 13: run tools/setup")
    assert done[program.name, engine].failure is None


def test_the_suite_is_whole() -> None:
    assert len({program.package for program in programs()}) >= 20
    assert len(programs()) >= 30
    assert all(program.what and program.task and program.verified for program in programs())


def test_nothing_is_taken_as_it_comes() -> None:
    """Versions are pinned, and engines' names are right."""
    for program in programs():
        assert re.search(r"(==?|@v?)\d", program.package), program
        assert {*program.engines, *program.left_out} <= set(ENGINES)


def test_the_document_is_of_these_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of none of them leaves what it says of all."""
    document = DOCUMENT.read_text()
    monkeypatch.setattr(report, "versions", lambda _engines: "")
    again = report.render([], document)
    rows = [line for line in document.splitlines() if line.startswith(("| ", "- "))]
    assert [line for line in again.splitlines() if line.startswith(("| ", "- "))] == rows
    assert not [program for program in programs() if f"{program} " not in document.replace("*", "")]
    assert "not run |" not in document


@pytest.mark.parametrize(
    ("places", "suite", "sources"),
    [
        ("Types: deb\nSuites: bookworm\n", "bookworm", "Types: deb-src\nSuites: bookworm\n"),
        (
            "Types: deb deb-src\nSuites: trixie trixie-updates",
            "trixie",
            "Types: deb-src\nSuites: bookworm bookworm-updates",
        ),
        ("# deb it\ndeb [a=b] it bookworm main", "bookworm", "# deb it\ndeb-src [a=b] it bookworm main"),
        (
            "deb it trixie-security main\ndeb-src it trixie main",
            "trixie",
            "deb-src it bookworm-security main\ndeb-src it bookworm main",
        ),
    ],
)
def test_debians_sources_are_found_by_where_its_programs_are(places: str, suite: str, sources: str) -> None:
    """In both formats of apt's lists, and on later Debians, which have other versions."""
    assert fetch.of_sources(places, suite) == sources
