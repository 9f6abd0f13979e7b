"""The life of a process in a container, as a table. This module imports nothing of ours.

Rule 1: a state changes only by :func:`after`, which knows every legal step and refuses all others, naming both ends.
:meth:`shimd.supervisor.task.process.Process.advance` is its one caller.
Rule 2: act first, then take the step: it is taken when the thing has happened, not when it was asked for.
So what fails, or is cancelled, has changed no state, and can be asked for again.

```
  CREATING (an init)  ADDED (an exec) ───────────────delete─────────────────┐
     │                  │                                                   │
     └──────create──────┤                                                   │
                        ▼                                                   ▼
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
    CREATING = "creating"
    """Its container is being made."""
    ADDED = "added"
    """Of an exec: asked for, and not started yet."""
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DELETED = "deleted"


class Step(Enum):
    CREATE = "create"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    EXIT = "exit"
    DELETE = "delete"


_TABLE: dict[tuple[State, Step], State] = {
    (State.CREATING, Step.CREATE): State.CREATED,
    (State.ADDED, Step.CREATE): State.CREATED,
    (State.ADDED, Step.DELETE): State.DELETED,
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
