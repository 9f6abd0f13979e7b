"""How guests wait: a guest's thread blocks, and what it waits for happens in the event loop."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
from anyio import from_thread

from shimd.component.caller import Caller, caller
from shimd.component.results import Abandoned

T = TypeVar("T")


def wait_for(function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Run an async function in the event loop, on behalf of the guest of this (worker) thread.

    :raises Abandoned: nobody needs the answer any more
    """
    guest = caller()
    if guest.lease is not None:
        guest.lease.release()
    try:
        return from_thread.run(_wait, guest, function, arguments)
    finally:
        if guest.lease is not None:
            guest.lease.acquire()


async def _wait(guest: Caller, function: Callable[..., Awaitable[T]], arguments: tuple[Any, ...]) -> T:
    with anyio.CancelScope() as scope:
        guest.waiting = scope
        if guest.abandoned:
            scope.cancel()
        result = await function(*arguments)
        guest.waiting = None
        return result
    raise Abandoned("the guest was abandoned while it waited")


async def first(waits: list[Callable[[], Awaitable[None]]]) -> None:
    """Wait until one of them is over."""
    if len(waits) == 1:
        return await waits[0]()
    async with anyio.create_task_group() as tasks:

        async def one(wait: Callable[[], Awaitable[None]]) -> None:
            await wait()
            tasks.cancel_scope.cancel()

        for wait in waits:
            tasks.start_soon(one, wait)
    return None
