"""The event bus: what tasks publish reaches each containerd in order, and operators as it happens.

containerd takes events over ttrpc (``containerd.services.events.ttrpc.v1.Events/Forward`` at ``TTRPC_ADDRESS``). While
it is away its queue waits and the forwarder tries again: containerd restarts with apps running, and learns what it
missed.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from betterproto2 import Message

from shimd.api.containerd import events as api
from shimd.log import logger
from shimd.supervisor.background import Background
from shimd.supervisor.envelope import forward_request, packed_any
from shimd.supervisor.forwarder import Forwarder
from shimd.supervisor.recovery.keeping import Keeping, NotKept
from shimd.typeurl import name

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
_PREFIX = "events:"


@dataclass(frozen=True)
class Event:
    namespace: str
    topic: str
    message: Message
    time: datetime


Subscriber = Callable[[Event], None]


def is_outbox(name: str) -> bool:
    """Returns whether the keeper has events under a name."""
    return name.startswith(_PREFIX)


class EventBus:
    """One queue and one forwarder per containerd address, and any number of subscribers.

    The events of each containerd are numbered. Who writes down the number of one (:meth:`next_seq`) before it
    publishes it, with no ``await`` in between, can have it published after a restart exactly if it was not before.
    """

    def __init__(self, tasks: Background, keeper: Keeping | None = None) -> None:
        self._tasks = tasks
        self._keeper = keeper or NotKept()
        self._forwarders: dict[str, Forwarder] = {}
        self.subscribers: set[Subscriber] = set()

    async def resume(self, name: str, fds: list[int]) -> None:
        """Go on with what an earlier supervisor had for a containerd, before anything is published for that.

        What is wrong with it costs these events, and a line of the log.

        :param name: under which it is kept (``events:…``)
        :param fds: of it; they are ours from now on
        """
        address, opened = name.removeprefix(_PREFIX), list(fds)
        forwarder = Forwarder(address, self._keeper, name)
        try:
            await forwarder.resume(opened)
        except Exception as error:
            _log.error("the events for containerd at %s cannot be taken over, and are lost: %s", address, error)
            self._keeper.drop(name)
            return
        finally:
            for fd in opened:
                os.close(fd)
        self._forwarders[address] = forwarder
        self._run(forwarder)

    def next_seq(self, address: str) -> int:
        """The number that the next event for this containerd will have."""
        return self._forwarder(address).last_seq + 1 if address else 0

    def publish(
        self, address: str, namespace: str, message: Message, seq: int | None = None, data: bytes | None = None
    ) -> None:
        """Queue an event for the containerd at a ttrpc ``address`` (empty: for subscribers only).

        :param seq: what :meth:`next_seq` gave
        :param data: the message, encoded, where that is known
        """
        self._publish(address, Event(namespace, TOPICS[type(message)], message, datetime.now(UTC)), seq, data)

    def publish_again(self, address: str, namespace: str, message: Message, seq: int, time: datetime) -> None:
        """Queue an event unless it was, by whichever supervisor. Where the keeper has nothing of those before, that is
        lost, and told again is only what has happened since: nothing twice.

        :param time: when it happened
        """
        if not address:
            return
        forwarder = self._forwarder(address)
        if not forwarder.resumed:
            forwarder.skip(seq)
        elif seq > forwarder.last_seq:
            self._publish(address, Event(namespace, TOPICS[type(message)], message, time), seq)

    def close(self) -> None:
        """Nothing is published any more; the keeper has what was not taken."""
        for forwarder in self._forwarders.values():
            forwarder.close()

    def queued(self) -> dict[str, int]:
        """Events that each containerd, by its address, has not taken yet."""
        return {address: len(forwarder) for address, forwarder in self._forwarders.items()}

    def dropped(self) -> dict[str, int]:
        """Events that each containerd, by its address, will not have: since this process began."""
        return {address: forwarder.dropped for address, forwarder in self._forwarders.items()}

    def _publish(self, address: str, event: Event, seq: int | None, data: bytes | None = None) -> None:
        for subscriber in list(self.subscribers):
            subscriber(event)
        if not address:
            return
        forwarder = self._forwarder(address)
        packed = packed_any(name(event.message), bytes(event.message) if data is None else data)
        request = forward_request(event.time, event.namespace, event.topic, packed)
        forwarder.put(forwarder.last_seq + 1 if seq is None else seq, request)

    def _forwarder(self, address: str) -> Forwarder:
        forwarder = self._forwarders.get(address)
        if forwarder is None:
            forwarder = self._forwarders[address] = Forwarder(address, self._keeper, f"{_PREFIX}{address}")
            forwarder.begin()
            self._run(forwarder)
        return forwarder

    def _run(self, forwarder: Forwarder) -> None:
        self._tasks.start_soon(forwarder.run)
        self._tasks.start_soon(forwarder.watch)
