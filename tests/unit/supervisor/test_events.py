"""The event bus, against a containerd's end of it that comes, goes and refuses."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from shimd.api.containerd import events as api
from shimd.api.containerd.services.events.ttrpc.v1 import ForwardRequest
from shimd.supervisor import forwarder
from shimd.supervisor.background import Background
from shimd.supervisor.events import TOPICS, Event, EventBus
from shimd.ttrpc import Call, Method, Server, StatusError
from shimd.typeurl import pack

pytestmark = pytest.mark.anyio


class Containerd:
    """Takes events at a path while it serves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken: list[tuple[str, str, str]] = []
        self.refuse: set[str] = set()
        self._changed = anyio.Event()

    async def _forward(self, _call: Call, data: bytes) -> bytes:
        envelope = ForwardRequest.parse(data).envelope
        assert envelope is not None and envelope.event is not None and envelope.timestamp is not None
        id = api.TaskStart.parse(envelope.event.value).container_id
        if id in self.refuse:
            raise StatusError(3, "refused")
        self.taken.append((envelope.namespace, envelope.topic, id))
        self._changed.set()
        return b""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        self.path.unlink(missing_ok=True)
        services = {
            "containerd.services.events.ttrpc.v1.Events": {"Forward": Method.unary(self._forward, bytes, bytes)}
        }
        async with await anyio.create_unix_listener(self.path) as listener, anyio.create_task_group() as tasks:
            tasks.start_soon(Server(services).serve, listener)
            yield
            tasks.cancel_scope.cancel()

    async def has(self, count: int) -> None:
        while len(self.taken) < count:
            self._changed = anyio.Event()
            await self._changed.wait()

    @property
    def ids(self) -> list[str]:
        return [id for _namespace, _topic, id in self.taken]


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            bus = EventBus(Background(tasks))
            yield bus
            tasks.cancel_scope.cancel()
        bus.close()


@pytest.fixture
def containerd(tmp_path: Path) -> Containerd:
    return Containerd(tmp_path / "events.sock")


def start(id: object) -> api.TaskStart:
    return api.TaskStart(container_id=str(id), pid=1)


async def test_order_namespace_and_topic(bus: EventBus, containerd: Containerd) -> None:
    async with containerd.serving():
        for number in range(100):
            bus.publish(str(containerd.path), "space", start(number))
        await containerd.has(100)
    assert containerd.taken == [("space", "/tasks/start", str(number)) for number in range(100)]


async def test_what_happened_while_containerd_was_away_comes_later(bus: EventBus, containerd: Containerd) -> None:
    bus.publish(str(containerd.path), "space", start("before"))
    await anyio.sleep(0.1)
    assert bus.queued() == {str(containerd.path): 1}
    async with containerd.serving():
        await containerd.has(1)
        bus.publish(str(containerd.path), "space", start("during"))
        await containerd.has(2)
    for number in range(3):
        bus.publish(str(containerd.path), "space", start(f"away {number}"))
    async with containerd.serving():
        await containerd.has(5)
    assert containerd.ids == ["before", "during", "away 0", "away 1", "away 2"]
    assert bus.queued() == {str(containerd.path): 0}


async def test_one_that_is_refused_does_not_hold_up_the_rest(bus: EventBus, containerd: Containerd) -> None:
    containerd.refuse.add("bad")
    async with containerd.serving():
        for id in ("one", "bad", "two"):
            bus.publish(str(containerd.path), "space", start(id))
        await containerd.has(2)
    assert containerd.ids == ["one", "two"]


async def test_each_containerd_gets_its_own_and_one_that_is_away_stops_no_other(
    bus: EventBus, containerd: Containerd, tmp_path: Path
) -> None:
    async with containerd.serving():
        bus.publish(str(tmp_path / "nobody.sock"), "space", start("other"))
        bus.publish(f"unix://{containerd.path}", "space", start("mine"))
        await containerd.has(1)
    assert containerd.ids == ["mine"]


async def test_the_backlog_is_bounded_and_loses_the_oldest(
    bus: EventBus, containerd: Containerd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forwarder, "BACKLOG", 3)
    for number in range(5):
        bus.publish(str(containerd.path), "space", start(number))
    async with containerd.serving():
        await containerd.has(3)
    assert containerd.ids == ["2", "3", "4"]
    assert "away too long: dropped /tasks/start" in caplog.text


async def test_subscribers_hear_all_even_what_no_containerd_is_told(bus: EventBus) -> None:
    heard: list[Event] = []
    bus.subscribers.add(heard.append)
    bus.publish("", "space", start("app"))
    assert [(event.namespace, event.topic) for event in heard] == [("space", "/tasks/start")]
    assert bus.queued() == {}


def test_every_event_has_its_topic_and_a_bare_type_url() -> None:
    assert set(TOPICS.values()) == {
        f"/tasks/{name}"
        for name in ("create", "start", "oom", "exit", "delete", "exec-added", "exec-started", "paused", "resumed")
    }
    for kind in TOPICS:  # as containerd's Go packages call them
        assert pack(kind()).type_url == f"containerd.events.{kind.__name__}".replace("Oom", "OOM")
