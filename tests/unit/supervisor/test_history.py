"""The rings behind ``shimd events`` and ``shimd logs``."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from anyio import to_thread

from shimd.api.containerd.events import TaskDelete, TaskExecStarted, TaskExit, TaskOom
from shimd.supervisor.events import TOPICS, Event
from shimd.supervisor.status.history import Line, LogRing, Ring, happened, naming

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def anything(_item: object) -> bool:
    return True


async def collect(items: AsyncIterator[tuple[Any, int]]) -> list[tuple[Any, int]]:
    return [item async for item in items]


async def test_a_ring_keeps_the_last_items() -> None:
    ring: Ring[int] = Ring(3)
    for number in range(5):
        ring.append(number)
    assert await collect(ring.read(0, False, anything)) == [(2, 0), (3, 0), (4, 0)]
    assert await collect(ring.read(2, False, anything)) == [(3, 0), (4, 0)]
    assert await collect(ring.read(9, False, anything)) == [(2, 0), (3, 0), (4, 0)]


async def test_the_last_are_counted_among_the_wanted() -> None:
    ring: Ring[int] = Ring(10)
    for number in range(10):
        ring.append(number)
    assert await collect(ring.read(2, False, lambda number: number % 2 == 0)) == [(6, 0), (8, 0)]


async def test_followers_see_each_item_once_and_in_order() -> None:
    ring: Ring[int] = Ring(100)
    ring.append(0)
    seen: list[int] = []

    async def follow() -> None:
        async with aclosing(ring.read(0, True, anything)) as items:
            async for number, lost in items:
                assert lost == 0
                seen.append(number)
                if number == 20:
                    return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        for number in range(1, 21):
            if number % 3 == 0:
                await anyio.lowlevel.checkpoint()
            ring.append(number)
    assert seen == list(range(21))


async def test_a_slow_reader_is_told_what_it_missed() -> None:
    ring: Ring[int] = Ring(4)
    ring.append(0)
    async with aclosing(ring.read(0, True, anything)) as items:
        assert await anext(items) == (0, 0)
        for number in range(1, 11):
            ring.append(number)
        assert await anext(items) == (7, 6)
        assert await anext(items) == (8, 0)


async def test_what_was_missed_is_told_with_the_next_wanted_item() -> None:
    ring: Ring[int] = Ring(4)
    ring.append(0)
    async with aclosing(ring.read(0, True, lambda number: number % 10 == 0)) as items:
        assert await anext(items) == (0, 0)
        for number in range(1, 11):
            ring.append(number)
        assert await anext(items) == (10, 6)


async def test_readers_that_left_cost_nothing() -> None:
    ring: Ring[int] = Ring(4)

    async def follow() -> None:
        await collect(ring.read(0, True, anything))

    for _ in range(3):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    ring.append(1)
    assert await collect(ring.read(0, False, anything)) == [(1, 0)]


@pytest.fixture
async def log() -> AsyncIterator[LogRing]:
    with LogRing(100) as handler:
        yield handler


@pytest.fixture
def shimd_logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("shimd.test")
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.setLevel(logging.NOTSET)


async def lines(log: LogRing) -> list[tuple[str, str]]:
    return [(line.level, line.message) for line, _lost in await collect(log.ring.read(0, False, anything))]


async def test_the_log_is_kept_with_its_levels(log: LogRing, shimd_logger: logging.Logger) -> None:
    shimd_logger.info("container %s: started", "a")
    shimd_logger.error("container %s: failed", "a")
    assert await lines(log) == [("INFO", "container a: started"), ("ERROR", "container a: failed")]


async def test_lines_of_other_threads_arrive(log: LogRing, shimd_logger: logging.Logger) -> None:
    async with aclosing(log.ring.read(0, True, anything)) as items, anyio.create_task_group() as tasks:
        tasks.start_soon(to_thread.run_sync, shimd_logger.warning, "from a thread")
        line, _lost = await anext(items)
    assert line.message == "from a thread"


async def test_libraries_debugging_is_not_kept(log: LogRing) -> None:
    other = logging.getLogger("hpack.test")
    other.setLevel(logging.DEBUG)
    try:
        other.debug("a header")
        other.warning("a warning")
    finally:
        other.setLevel(logging.NOTSET)
    assert await lines(log) == [("WARNING", "a warning")]


async def test_a_flood_in_one_line_is_cut(log: LogRing, shimd_logger: logging.Logger) -> None:
    shimd_logger.error("x" * 1_000_000)
    assert [len(message) for _level, message in await lines(log)] == [8192]


async def test_a_traceback_is_kept(log: LogRing, shimd_logger: logging.Logger) -> None:
    try:
        raise ValueError("why")
    except ValueError:
        shimd_logger.exception("it failed")
    ((level, message),) = await lines(log)
    assert level == "ERROR"
    assert message.startswith("it failed\nTraceback")
    assert message.endswith("ValueError: why")


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("container web: gone", True),
        ("container web", True),
        ("web.", True),
        ("container web-1: gone", False),
        ("container my-web: gone", False),
        ("container web.1: gone", False),
        ("container webs: gone", False),
        ("web/exec: gone", True),
    ],
)
def test_a_line_names_a_container_as_a_whole_word(message: str, found: bool) -> None:
    assert naming("web")(Line(0, "INFO", message)) is found


def test_an_empty_name_is_in_every_line() -> None:
    assert naming("")(Line(0, "INFO", "anything"))


def event(message: Any) -> Event:
    return Event("ns", TOPICS[type(message)], message, datetime.now(UTC))


def test_an_exit_of_the_init_has_no_exec() -> None:
    found = happened(event(TaskExit(container_id="c", id="c", pid=7, exit_status=3)))
    assert (found.container, found.exec, found.pid, found.status) == ("c", "", 7, 3)


def test_an_exit_of_an_exec_names_it() -> None:
    found = happened(event(TaskExit(container_id="c", id="e", pid=7, exit_status=0)))
    assert (found.container, found.exec, found.status) == ("c", "e", 0)


def test_events_without_a_status_have_none() -> None:
    started = happened(event(TaskExecStarted(container_id="c", exec_id="e", pid=7)))
    assert (started.topic, started.exec, started.pid, started.status) == ("/tasks/exec-started", "e", 7, None)
    assert happened(event(TaskOom(container_id="c"))).status is None
    assert happened(event(TaskDelete(container_id="c", exit_status=137))).status == 137
