"""The differential test: for the same life, shimd publishes what containerd's own shim publishes.

Events are recorded from ``ctr events`` and made comparable: pids become the names of their processes, paths lose what
is particular to a run, times only have to be there.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.e2e.box import RUNTIMES, Box, Event, Runtime, happens, ours_only, until
from tests.e2e.conftest import BoxMaker
from tests.e2e.containerd import Containerd

Life = Callable[[Box], None]


def attached(box: Box) -> None:
    box.run("app", "exit", 3)


def killed(box: Box) -> None:
    box.detach("app", "sleep", 600)
    box.kill("app")
    box.wait_status("app", "STOPPED")
    box.delete("app")


def paused(box: Box) -> None:
    box.detach("app", "sleep", 600)
    box.ctr("tasks", "pause", "app")
    box.ctr("tasks", "resume", "app")
    killed_now(box)


def killed_now(box: Box) -> None:
    box.kill("app")
    box.wait_status("app", "STOPPED")
    box.delete("app")


def exec(box: Box) -> None:
    box.detach("app", "sleep", 600)
    box.exec("app", "second", "exit", 4)
    killed_now(box)


def exec_killed(box: Box) -> None:
    box.detach("app", "sleep", 600)
    box.ctr("tasks", "exec", "-d", "--exec-id", "second", "app", box.runtime.program, "sleep", 600)
    box.kill("app", "SIGKILL", "--exec-id", "second")
    exits(box, "second")
    killed_now(box)


def exec_outlived(box: Box) -> None:
    """The end of the first process takes the second along."""
    box.detach("app", "sleep", 600)
    box.ctr("tasks", "exec", "-d", "--exec-id", "second", "app", box.runtime.program, "sleep", 600)
    box.kill("app")
    exits(box, "second")
    box.wait_status("app", "STOPPED")
    box.delete("app")


def exec_missing(box: Box) -> None:
    box.detach("app", "sleep", 600)
    box.ctr("tasks", "exec", "--exec-id", "second", "app", "/missing", check=False)
    killed_now(box)


def created_only(box: Box) -> None:
    """A mount that cannot be made: Create fails."""
    box.run("app", flags=("--rm", "--mount", "type=bind,src=/nowhere,dst=/mnt,options=rbind"))


def out_of_memory(box: Box) -> None:
    box.detach("app", "allocate", 256, flags=("--memory-limit", 64 << 20))
    box.wait_status("app", "STOPPED")
    box.delete("app")


def null_io(box: Box) -> None:
    box.run("app", "hello", flags=("--rm", "--null-io"))


def restarted(box: Box) -> None:
    """A second task of the same container."""
    box.run("app", "exit", 1, flags=())
    box.ctr("tasks", "start", "app", check=False)


LIVES: list[Life] = [
    attached, killed, paused, exec, exec_killed, exec_outlived, exec_missing, created_only, out_of_memory, null_io,
    restarted,
]  # fmt: skip


def exits(box: Box, id: str) -> None:
    until(lambda: any(event.payload.get("id") == id for event in box.events("app")), f"the exit of {id}")


def comparable(box: Box) -> list[Event]:
    names: dict[int, str] = {0: "none"}
    return [Event(event.topic, _plain(box, event.payload, names)) for event in box.events("app")]


def _plain(box: Box, payload: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    plain = dict(payload)
    if "pid" in plain:
        plain["pid"] = names.setdefault(plain["pid"], f"process {len(names)}")
    if "exited_at" in plain:
        plain["exited_at"] = bool(plain["exited_at"])
    if "rootfs" in plain:
        plain["rootfs"] = [(mount["type"], len(mount["options"])) for mount in plain["rootfs"]]
    if "io" in plain:
        plain["io"] = {stream: _short(box, value) for stream, value in plain["io"].items()}
    if "bundle" in plain:
        plain["bundle"] = _short(box, plain["bundle"])
    return plain


def _short(box: Box, value: Any) -> Any:
    if isinstance(value, str) and value.startswith("/run/containerd/fifo/"):
        return value.rsplit("/", 1)[1]
    return value.replace(box.namespace, "NAMESPACE") if isinstance(value, str) else value


def over(box: Box) -> bool:
    """Whether all that began has ended, as far as events tell."""
    topics = [event.topic for event in box.events("app")]
    begun = topics.count("/tasks/start") + topics.count("/tasks/exec-started")
    return topics.count("/tasks/exit") >= begun and topics.count("/tasks/delete") >= topics.count("/tasks/create")


def settled(box: Box) -> list[Event]:
    """All events of a life that is over: they reach ``ctr events`` some time after what they tell of."""
    until(lambda: over(box), "the last event")
    return comparable(box)


def delete_last(events: list[Event]) -> list[Event]:
    """containerd publishes the delete, its runc shim the exit, from a queue that Delete does not wait for: in 2.x the
    delete sometimes overtakes the exit. shimd's never does, which is what it is held to."""
    ordered = list(events)
    for index in range(1, len(ordered)):
        before, event = ordered[index - 1 : index + 1]
        if (before.topic, event.topic) == ("/tasks/delete", "/tasks/exit"):
            ordered[index - 1 : index + 1] = [event, before]
    return ordered


@pytest.fixture
def reference(containerd: Containerd, new_box: BoxMaker) -> Callable[[Life], list[Event]]:
    """What runc's shim publishes for a life.

    In 2.x it may leave before its last exit is published, and the event is lost: then the life is led again.
    """

    def lead(life: Life) -> list[Event]:
        for _ in range(10):
            box = new_box(containerd, RUNTIMES[0])
            life(box)
            if happens(partial(over, box), 2):
                return delete_last(comparable(box))
        raise AssertionError("runc's shim lost an event each time")

    return lead


def by_process(events: list[Event]) -> dict[str, list[Event]]:
    """Events of one process keep their order; those of two that end together may come either way round."""
    apart: dict[str, list[Event]] = {}
    for event in events:
        apart.setdefault(event.payload.get("exec_id") or event.payload.get("id") or "app", []).append(event)
    return apart


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
@ours_only
def test_as_runc(box: Box, runtime: Runtime, reference: Callable[[Life], list[Event]], life: Life) -> None:
    expected = by_process(reference(life))
    life(box)
    assert by_process(settled(box)) == expected


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
def test_the_reference_shows_what_it_should(reference: Callable[[Life], list[Event]], life: Life) -> None:
    """The comparison means nothing if nothing was recorded."""
    topics = [event.topic for event in reference(life)]
    if life is created_only:
        assert "/tasks/start" not in topics
    else:
        assert topics[0] == "/tasks/create"
        assert topics[1] == "/tasks/start"
        assert topics[-1] == "/tasks/delete"
