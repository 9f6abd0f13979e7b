"""Each case on each engine. What is known to fail must fail, so that ``expected.toml`` stays true."""

import shutil
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.runner import Outcome, runner
from tests.conformance.suite import ENGINES, Case, cases, known_failures, runs
from tests.e2e import trixie

RUNS = [pytest.param((case, engine), id=f"{engine}-{case}") for case, engine in runs()]
Outcomes = dict[tuple[str, str], Outcome]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Outcomes:
    """Of all runs that were asked for, by case and engine, made some at a time."""
    if shutil.which("clang") is None:
        pytest.skip("the guests are compiled by clang: run tools/setup")
    with runner() as made:
        done = made.run_all(_asked_for(request.session.items))
    return {(str(outcome.case), outcome.engine): outcome for outcome in done}


def _asked_for(items: list[pytest.Item]) -> Iterator[tuple[Case, str]]:
    for item in items:
        if isinstance(item, pytest.Function) and item.originalname == test_conformance.__name__:
            run: Any = item.callspec.params["run"]
            if trixie.where(run[1]) is not None:
                yield run


@pytest.mark.parametrize("run", RUNS)
def test_conformance(run: tuple[Case, str], outcomes: Outcomes) -> None:
    case, engine = run
    if trixie.where(engine) is None:
        pytest.skip(f"{engine} cannot run here, and there is no tree of Debian 13: run tools/setup")
    outcome, known = outcomes[str(case), engine], known_failures(engine).get(str(case))
    if known is None:
        assert outcome.failure is None
    else:
        assert outcome.failure is not None, f"it passes, and expected.toml says: {known.reason}"
        assert outcome.guest_says, outcome


def test_every_known_failure_is_of_a_run() -> None:
    made = {(str(case), engine) for case, engine in runs()}
    assert {(name, engine) for engine in ENGINES for name in known_failures(engine)} <= made


def test_the_suite_is_whole() -> None:
    assert Counter(case.group for case in cases()) == {"assemblyscript": 12, "c": 14, "rust": 46, "rust-as-libc": 42}
