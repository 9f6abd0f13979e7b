"""Each case on each engine. What is known to fail must fail, so that ``expected.toml`` stays true."""

import shutil
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.runner import Outcome, runner
from tests.conformance.suite import ENGINES, Case, cases, known_failures, runs
from tests.e2e import trixie

#: Engines whose workers are usually without Python.
WITHOUT_PYTHON = ("wasmtime", "wasmer")
RUNS = [pytest.param((case, engine), id=f"{engine}-{case}") for case, engine in runs()]
WITH_PYTHON = [
    pytest.param((case, engine), id=f"{engine}-{case}") for case, engine in runs() if engine in WITHOUT_PYTHON
]
Outcomes = dict[tuple[str, str], Outcome]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Outcomes:
    """Of all runs that were asked for, by case and engine, made some at a time."""
    return _made(request, test_conformance.__name__, zygote=True)


@pytest.fixture(scope="module")
def outcomes_with_python(request: pytest.FixtureRequest) -> Outcomes:
    """The same, of workers with an interpreter in them."""
    return _made(request, test_conformance_with_python.__name__, zygote=False)


def _made(request: pytest.FixtureRequest, test: str, *, zygote: bool) -> Outcomes:
    if shutil.which("clang") is None:
        pytest.skip("the guests are compiled by clang: run tools/setup")
    with runner(zygote=zygote) as made:
        done = made.run_all(_asked_for(request.session.items, test))
    return {(str(outcome.case), outcome.engine): outcome for outcome in done}


def _asked_for(items: list[pytest.Item], test: str) -> Iterator[tuple[Case, str]]:
    for item in items:
        if isinstance(item, pytest.Function) and item.originalname == test:
            run: Any = item.callspec.params["run"]
            if _lacking(*run) is None:
                yield run


def _lacking(case: Case, engine: str) -> str | None:
    """What is not here that it needs."""
    if trixie.where(engine) is None:
        return f"{engine} cannot run here, and there is no tree of Debian 13: run tools/setup"
    if case.crate is not None and not trixie.is_there():
        return "the guests are compiled in a tree of Debian 13: run tools/setup"
    return None


@pytest.mark.parametrize("run", RUNS)
def test_conformance(run: tuple[Case, str], outcomes: Outcomes) -> None:
    _judge(run, outcomes)


@pytest.mark.parametrize("run", WITH_PYTHON)
def test_conformance_with_python(run: tuple[Case, str], outcomes_with_python: Outcomes) -> None:
    """The other way to make a worker: nothing is otherwise."""
    _judge(run, outcomes_with_python)


def _judge(run: tuple[Case, str], outcomes: Outcomes) -> None:
    if (lacking := _lacking(*run)) is not None:
        pytest.skip(lacking)
    outcome = outcomes[str(run[0]), run[1]]
    known = known_failures(outcome.engine).get(str(outcome.case))
    if known is None:
        assert outcome.failure is None
    else:
        assert outcome.failure is not None, f"it passes, and expected.toml says: {known.reason}"
        assert outcome.guest_says, outcome


def test_every_known_failure_is_of_a_run() -> None:
    possible = {(str(case), engine) for case in cases() for engine in case.engines}
    assert {(name, engine) for engine in ENGINES for name in known_failures(engine)} <= possible


def test_the_suite_is_whole() -> None:
    assert Counter(case.group for case in cases()) == {
        "assemblyscript": 12,
        "c": 14,
        "rust": 46,
        "rust-as-libc": 42,
        "wasi-0.3": 55,
    }
