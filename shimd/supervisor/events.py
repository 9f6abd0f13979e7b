"""The event bus: what tasks publish reaches each containerd in order, and operators as it happens.

containerd takes events over ttrpc (``containerd.services.events.ttrpc.v1.Events/Forward`` at ``TTRPC_ADDRESS``). While
it is away its queue waits and the forwarder tries again: containerd restarts with apps running, and learns what it
missed.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio
from betterproto2 import Message
from tenacity import AsyncRetrying, before_sleep_log, retry_if_exception_type, wait_exponential

from shimd.api.containerd import events as api
from shimd.api.containerd.services.events.ttrpc.v1 import ForwardRequest
from shimd.api.containerd.types import Envelope
from shimd.log import logger
from shimd.supervisor.background import Background
from shimd.ttrpc import Client, StatusError, TtrpcError
from shimd.typeurl import pack

_log = logger(__name__)

#: containerd's ``core/runtime/events.go``.
TOPICS: dict[type[Message], str] = {
    api.TaskCreate: "/tasks/create",
    api.TaskStart: "/tasks/start",
    api.TaskOom: "/tasks/oom",
    api.TaskExit: "/tasks/exit",
    api.TaskDelete: "/tasks/delete",
    api.TaskExecAdded: "/tasks/exec-added",
    api.TaskExecStarted: "/tasks/exec-started",
    api.TaskPaused: "/tasks/paused",
    api.TaskResumed: "/tasks/resumed",
}
#: Events kept for a containerd that is away; beyond, the oldest are dropped (and that is logged).
BACKLOG = 65536


@dataclass(frozen=True)
class Event:
    namespace: str
    topic: str
    message: Message
    time: datetime


Subscriber = Callable[[Event], None]


class EventBus:
    """One queue and one forwarder per containerd address, and any number of subscribers."""

    def __init__(self, tasks: Background) -> None:
        self._tasks = tasks
        self._forwarders: dict[str, Forwarder] = {}
        self.subscribers: set[Subscriber] = set()

    def publish(self, address: str, namespace: str, message: Message) -> None:
        """Queue an event for the containerd at a ttrpc ``address`` (empty: for subscribers only)."""
        event = Event(namespace, TOPICS[type(message)], message, datetime.now(UTC))
        for subscriber in list(self.subscribers):
            subscriber(event)
        if address:
            self._forwarder(address).put(event)

    def queued(self) -> dict[str, int]:
        """Events that each containerd, by its address, has not taken yet."""
        return {address: len(forwarder) for address, forwarder in self._forwarders.items()}

    def _forwarder(self, address: str) -> "Forwarder":
        forwarder = self._forwarders.get(address)
        if forwarder is None:
            forwarder = self._forwarders[address] = Forwarder(address)
            self._tasks.start_soon(forwarder.run)
        return forwarder


class Forwarder:
    """The ordered queue of one containerd: an event leaves it when containerd has taken it."""

    def __init__(self, address: str) -> None:
        self._address = address.removeprefix("unix://")
        self._queue: deque[Event] = deque()
        self._filled = anyio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, event: Event) -> None:
        if len(self._queue) >= BACKLOG:
            lost = self._queue.popleft()
            _log.error("containerd at %s is away too long: dropped %s", self._address, lost.topic)
        self._queue.append(event)
        self._filled.set()

    async def run(self) -> None:
        retry = AsyncRetrying(
            retry=retry_if_exception_type((OSError, TtrpcError)),
            wait=wait_exponential(multiplier=0.05, max=2),
            before_sleep=before_sleep_log(_log, 10),
        )
        while True:
            await retry(self._connected)

    async def _connected(self) -> None:
        """Forward over one connection until it breaks."""
        await self._wait_filled()
        async with await anyio.connect_unix(self._address) as stream, Client(stream) as client:
            while True:
                await self._wait_filled()
                await self._forward(client, self._queue[0])
                self._queue.popleft()

    async def _wait_filled(self) -> None:
        while not self._queue:
            self._filled = anyio.Event()
            await self._filled.wait()

    async def _forward(self, client: Client, event: Event) -> None:
        envelope = Envelope(
            timestamp=event.time,
            namespace=event.namespace,
            topic=event.topic,
            event=pack(event.message),
        )
        try:
            await client.unary(
                "containerd.services.events.ttrpc.v1.Events", "Forward", bytes(ForwardRequest(envelope=envelope))
            )
        except StatusError as error:  # containerd has seen it and refuses it: the same again would be refused again
            _log.error("containerd at %s refused %s: %s", self._address, event.topic, error)
