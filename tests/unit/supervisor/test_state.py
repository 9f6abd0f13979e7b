"""The state table, against the list of legal steps written down a second time."""

import itertools

import pytest

from shimd.supervisor.task.state import IllegalStep, State, Step, after

LEGAL = {
    ("creating", "create"): "created",
    ("added", "create"): "created",
    ("added", "delete"): "deleted",
    ("created", "start"): "running",
    ("created", "exit"): "stopped",
    ("running", "pause"): "paused",
    ("running", "exit"): "stopped",
    ("paused", "resume"): "running",
    ("paused", "exit"): "stopped",
    ("stopped", "delete"): "deleted",
}


@pytest.mark.parametrize(("state", "step"), [*itertools.product(State, Step)])
def test_every_pair(state: State, step: Step) -> None:
    expected = LEGAL.get((state.value, step.value))
    if expected is None:
        with pytest.raises(IllegalStep) as refused:
            after(state, step)
        assert step.value in str(refused.value) and state.value in str(refused.value)
    else:
        assert after(state, step) is State(expected)


def test_deleted_is_final() -> None:
    assert not any(state == "deleted" for state, _step in LEGAL)
