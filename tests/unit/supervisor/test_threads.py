"""shimd.supervisor.threads: what hangs is left to itself, and what comes of it later is undone."""

import subprocess
import sys
import threading
from threading import Event

import anyio
import pytest

from shimd.errors import Unavailable
from shimd.supervisor.threads import in_thread

pytestmark = pytest.mark.anyio


async def test_result_and_error() -> None:
    assert await in_thread(lambda: threading.current_thread().name, "this") == "shimd: this"
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0, "that")


async def test_what_hangs_is_an_error_and_undone_when_it_comes_to_an_end() -> None:
    go, undone = Event(), Event()
    with pytest.raises(Unavailable, match=r"^making it has not ended within 0\.01 s$"):
        await in_thread(go.wait, "making it", limit=0.01, undo=undone.set)
    assert not undone.is_set()
    go.set()
    assert undone.wait(30)


async def test_what_is_waited_for_is_not_undone() -> None:
    undone = Event()
    assert await in_thread(lambda: 5, "making it", undo=undone.set) == 5
    assert not undone.is_set()


async def test_who_is_cancelled_waits_within_the_limit() -> None:
    go, results = Event(), []

    async def work() -> None:
        results.append(await in_thread(go.wait, "it"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        go.set()
    assert results == [True]


async def test_or_does_not() -> None:
    go = Event()
    with anyio.move_on_after(0.01) as scope:
        await in_thread(go.wait, "it", cancellable=True)
    assert scope.cancelled_caught
    go.set()


async def test_shared_work_is_done_once() -> None:
    go, calls = Event(), []

    def act() -> int:
        calls.append(1)
        go.wait()
        return len(calls)

    results = []

    async def work() -> None:
        results.append(await in_thread(act, "the same", shared=True))

    with pytest.raises(Unavailable):
        await in_thread(act, "the same", shared=True, limit=0.01)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert results == [1, 1, 1]
    assert await in_thread(lambda: 7, "the same", shared=True) == 7


_ENDS = """
import anyio, threading
from contextlib import suppress
from shimd.errors import Unavailable
from shimd.supervisor.threads import in_thread
async def main():
    with suppress(Unavailable):
        await in_thread(threading.Event().wait, "it", limit=0.01)
anyio.run(main)
print("ended")
"""


def test_the_process_does_not_wait_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", _ENDS], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "ended\n"
