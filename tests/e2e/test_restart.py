"""containerd goes and comes back while apps run: nothing of theirs is lost."""

import os
import signal
from functools import partial

import pytest

from tests.e2e.box import Box, content, happens, until
from tests.e2e.containerd import version_of

pytestmark = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])


def reaped_on_reload(box: Box) -> bool:
    """containerd 2 deletes a stopped task on reload if its shim shows no pids; runc's shows none."""
    return box.runtime.reference and version_of(box.containerd) >= (2, 0)


def may_lose_its_last_event(box: Box) -> bool:
    """runc's shim, with containerd 2: it may leave before the event is published."""
    return box.runtime.reference and version_of(box.containerd) >= (2, 0)


def recorded(box: Box, id: str, topic: str) -> bool:
    return any(event.topic == topic for event in box.events(id))


def test_tasks_are_still_there(own_box: Box, number: signal.Signals) -> None:
    box = own_box
    output = box.detach("app", "tick")
    box.detach("paused", "sleep", 600)
    box.ctr("tasks", "pause", "paused")
    before = box.tasks()
    box.containerd.restart(number)
    assert box.tasks() == before
    seen = len(content(output))
    until(lambda: len(content(output)) > seen, "more ticks")
    assert box.exec("app", "e", "echo", "after").out == "after\n"
    box.ctr("tasks", "resume", "paused")
    for id in ("app", "paused"):
        assert box.kill(id).code == 0
        box.wait_status(id, "STOPPED")
        assert box.delete(id) == 137
        deleted = partial(recorded, box, id, "/tasks/delete")
        if not may_lose_its_last_event(box) or happens(deleted, 2):
            assert box.wait_event(id, "/tasks/delete").payload["exit_status"] == 137
    assert not box.leftovers()


def test_a_stopped_task_keeps_its_exit_code(own_box: Box, number: signal.Signals) -> None:
    box = own_box
    box.detach("app", "exit", 7)
    box.wait_status("app", "STOPPED")
    box.containerd.restart(number)
    if reaped_on_reload(box):
        assert box.status("app") is None
    else:
        assert box.delete("app") == 7


def test_an_exit_meanwhile_is_not_lost(own_box: Box, number: signal.Signals) -> None:
    box = own_box
    box.detach("app", "sleep", 600)
    box.detach("other", "sleep", 600)
    pid = box.pid("app")
    box.containerd.stop(number)
    os.kill(pid, signal.SIGKILL)
    box.containerd.start()
    if reaped_on_reload(box):
        box.wait_status("app", None)
    else:
        box.wait_status("app", "STOPPED")
        assert box.delete("app") == 137
    assert box.status("other") == "RUNNING"


def test_twice_in_a_row(own_box: Box, number: signal.Signals) -> None:
    box = own_box
    box.detach("app", "sleep", 600)
    before = box.tasks()
    box.containerd.restart(number)
    box.containerd.restart(number)
    assert box.tasks() == before
    assert box.run("new").out == "hello from app\n"
