"""The tasks that shimd has: as its daemon says, or, where none answers, as its journal does."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio

from shimd import paths
from shimd.api.shimd.status.v1 import DaemonResponse, StatusStub, TasksRequest
from shimd.errors import ShimdError
from shimd.protocol.journal import TaskRecord
from shimd.status_client import connected
from shimd.supervisor.recovery.journal import Journal
from shimd.supervisor.task.state import State

T = TypeVar("T")
#: Seconds for a daemon to answer; one that does not is as good as none.
_PATIENCE = 15.0


@dataclass(frozen=True)
class Task:
    namespace: str
    id: str
    engine: str
    bundle: Path

    def __str__(self) -> str:
        return f"{self.namespace}/{self.id} ({self.engine})"


def daemon() -> DaemonResponse | None:
    """What the daemon says of itself; ``None``: none answers."""

    return _answer(lambda stub: stub.daemon())


def tasks() -> list[Task]:
    """All that there are, of all containerds and namespaces."""

    if (answer := _answer(lambda stub: stub.tasks(TasksRequest()))) is None:
        return [_task(record) for record in records()]
    return [Task(one.namespace, one.id, one.engine, Path(one.bundle)) for one in answer.tasks]


def _answer(question: Callable[[StatusStub], Awaitable[T]]) -> T | None:
    """What the daemon answers; ``None``: nothing."""

    async def ask() -> T:
        with anyio.fail_after(_PATIENCE):
            async with connected() as stub:
                return await question(stub)

    try:
        return anyio.run(ask)
    except (ShimdError, TimeoutError):
        return None


def records() -> list[TaskRecord]:
    """What the journal has of them; those that were deleted are there a little longer."""
    if not paths.journal_dir().is_dir():
        return []
    found = [record for record in Journal(paths.journal_dir()).read() if isinstance(record, TaskRecord)]
    return [record for record in found if record.processes and record.processes[0].state != State.DELETED.value]


def _task(record: TaskRecord) -> Task:
    return Task(record.namespace, record.id, "native" if record.native else record.engine, Path(record.bundle))


def named(found: list[Task], most: int = 20) -> str:
    """As words of a sentence."""
    more = [f"and {len(found) - most} more"] if len(found) > most else []
    return ", ".join([*map(str, found[:most]), *more])
