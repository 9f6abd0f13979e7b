"""A hundred apps of two engines and a native runtime, and ten deaths of the daemon under load (``make chaos``)."""

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.e2e import leftovers
from tests.e2e.box import OURS, RUNTIMES, Box, Runtime
from tests.e2e.test_daemon_death import end_daemon, topics

pytestmark = [
    pytest.mark.skipif("SHIMD_TEST_HUNDRED" not in os.environ, reason="it takes minutes: SHIMD_TEST_HUNDRED=1"),
    pytest.mark.timeout(1200),
    pytest.mark.parametrize("runtime", OURS[:1], indirect=True),
]
NATIVE, WASMTIME, WASMER = RUNTIMES[1], RUNTIMES[2], RUNTIMES[-1]
APPS = [*[WASMTIME] * 40, *[WASMER] * 40, *[NATIVE] * 20]
DEATHS, LOAD = 10, 3
#: What ends them, and what they end with.
ENDS = {"SIGKILL": 137, "SIGTERM": 143}
LIFE = ["create", "start", "exit", "delete"]


def test_a_hundred_apps_and_ten_deaths(own_box: Box) -> None:
    box, chance = own_box, random.Random()
    boxes = {one.name: replace(box, runtime=one) for one in (NATIVE, WASMTIME, WASMER)}
    apps = {f"app-{number}": one for number, one in enumerate(APPS)}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda item: boxes[item[1].name].detach(item[0], "sleep", 3600), apps.items()))
    before = box.tasks()
    assert len(before) == len(APPS) and {status for _pid, status in before.values()} == {"RUNNING"}
    over = threading.Event()
    with ThreadPoolExecutor(LOAD) as threads:
        loads = [threads.submit(load, boxes, number, over) for number in range(LOAD)]
        try:
            for _ in range(DEATHS):
                end_daemon(box, chance.choice([signal.SIGKILL, signal.SIGTERM]))
                time.sleep(chance.uniform(2, 5))  # containerd 2.x waits for two seconds, and pauses may grow before
        finally:
            over.set()
        came = [codes for one in loads for codes in one.result()]
    print(f"{len(came)} apps came and went meanwhile")
    assert len(came) >= DEATHS
    assert [(id, found) for id, wanted, found in came if wanted != found] == []
    assert {id: box.tasks()[id] for id in before} == before
    with ThreadPoolExecutor(4) as threads:
        ended = dict(threads.map(lambda item: (item[0], end(box, *item)), apps.items()))
    assert {id: code for id, (code, wanted) in ended.items() if code != wanted} == {}
    for id in [*apps, *(id for id, _wanted, _found in came)]:
        box.wait_event(id, "/tasks/delete")
        assert topics(box, id) == LIFE
    assert not leftovers.settled(box.leftovers)


def load(boxes: dict[str, Box], number: int, over: threading.Event) -> list[tuple[str, int, int]]:
    """Apps, one after the other: each with the code that it is to have, and the one that it has."""
    came: list[tuple[str, int, int]] = []
    while not over.is_set():
        box, code = boxes[random.choice(list(boxes))], random.randrange(100)
        id = f"load-{number}-{len(came)}"
        came.append((id, code, box.run(id, "exit", code).code))
    return came


def end(box: Box, id: str, runtime: Runtime) -> tuple[int, int]:
    """Its exit code, and the one that it should have. A native init of its own pid namespace is not ended by TERM."""
    number = "SIGKILL" if runtime is NATIVE else random.choice(list(ENDS))
    box.kill(id, number)
    box.wait_status(id, "STOPPED")
    return box.delete(id), ENDS[number]
