"""A base class for objects that have a task of their own for as long as they are used."""

from abc import ABC, abstractmethod
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup


class BackgroundTask(ABC):
    """``async with`` it: :meth:`_work` runs until the end of the block, and is cancelled there."""

    _tasks: TaskGroup

    @abstractmethod
    async def _work(self) -> None: ...

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._work)
        return self

    async def __aexit__(self, *exception: Any) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(*exception)
