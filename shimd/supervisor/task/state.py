"""The life of a process in a container, as a table. This module imports nothing of ours.

Rule 1: a state changes only by :func:`after`, which knows every legal step and refuses all others, naming both ends.
Rule 2: a step is taken when the thing has happened, not when it was asked for; what is asked for meanwhile is refused.

```
  CREATED ──start──▶ RUNNING ──exit──▶ STOPPED ──delete──▶ DELETED
     │                │   ▲               ▲
     │              pause resume          │
     │                ▼   │               │
     │               PAUSED ────exit──────┤
     └──────────────exit──────────────────┘
```
"""

from enum import Enum


class State(Enum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DELETED = "deleted"


class Step(Enum):
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    EXIT = "exit"
    DELETE = "delete"


_TABLE: dict[tuple[State, Step], State] = {
    (State.CREATED, Step.START): State.RUNNING,
    (State.RUNNING, Step.PAUSE): State.PAUSED,
    (State.PAUSED, Step.RESUME): State.RUNNING,
    (State.CREATED, Step.EXIT): State.STOPPED,
    (State.RUNNING, Step.EXIT): State.STOPPED,
    (State.PAUSED, Step.EXIT): State.STOPPED,
    (State.STOPPED, Step.DELETE): State.DELETED,
}


class IllegalStep(Exception):
    """The step is not in the table."""

    def __init__(self, state: State, step: Step) -> None:
        super().__init__(f"cannot {step.value} a {state.value} process")
        self.state, self.step = state, step


def after(state: State, step: Step) -> State:
    """The state that ``step`` leads to.

    :raises IllegalStep: it leads nowhere
    """
    try:
        return _TABLE[state, step]
    except KeyError:
        raise IllegalStep(state, step) from None
