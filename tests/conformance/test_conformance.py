"""Each case on each engine. What is known to fail must fail, so that ``expected.toml`` stays true."""

import shutil
from collections.abc import Iterator

import pytest

from tests.conformance.runner import Outcome, runner
from tests.conformance.suite import ENGINES, GROUPS, Case, cases, expected_failures

RUNS = [pytest.param((case, engine), id=f"{engine}-{case}") for engine in ENGINES for case in cases()]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], Outcome]]:
    """Of all runs that were asked for, made some at a time."""
    if shutil.which("clang") is None:
        pytest.skip("the guests are compiled by clang: run tools/setup")
    parameters = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    with runner() as made:
        done = made.run_all(found["run"] for found in parameters if "run" in found)
        yield {(str(outcome.case), outcome.engine): outcome for outcome in done}


@pytest.mark.parametrize("run", RUNS)
def test_conformance(run: tuple[Case, str], outcomes: dict[tuple[str, str], Outcome]) -> None:
    case, engine = run
    outcome, reason = outcomes[str(case), engine], expected_failures(engine).get(str(case))
    if reason is None:
        assert outcome.failure is None, outcome
    else:
        assert outcome.failure is not None, f"it passes, and expected.toml says: {reason}"


def test_every_known_failure_is_a_case() -> None:
    names = {str(case) for case in cases()}
    for engine in ENGINES:
        assert set(expected_failures(engine)) <= names


def test_the_suite_is_whole() -> None:
    counts = {group: sum(case.group == group for case in cases()) for group in GROUPS}
    assert counts == {"assemblyscript": 12, "c": 14, "rust": 46}
