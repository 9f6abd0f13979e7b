"""``messaging``: topics in a file of SQLite, or a broker of MQTT (mosquitto)."""

import queue
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shimd.apps.slight.backend import Opener, fail, failing, file_name
from shimd.apps.slight.keyvalue import PATIENCE
from shimd.apps.slight.slightfile import Capability, Slightfile
from shimd.apps.spin.database import Database
from shimd.component.results import Abandoned
from shimd.wit.guest import current

if TYPE_CHECKING:
    from paho.mqtt import client as mqtt

#: Seconds between looks whether anybody still waits for the guest that waits for a message.
_LOOK = 0.5


class Messaging:
    """Provides ``pub`` and ``sub`` of ``messaging`` to guests."""

    def __init__(self, slightfile: Slightfile, directory: str) -> None:
        """:param directory: of temporary files, where topics of the file system are"""
        self._brokers = Opener(
            slightfile,
            "messaging",
            {"filesystem": lambda _capability, name: Topics(Path(directory), name), "mosquitto": Mosquitto},
        )

    def pub_open(self, name: str) -> Any:
        return self._brokers.open(name)

    def sub_open(self, name: str) -> Any:
        return self._brokers.open(name)


class Topics:
    """Every message of a topic, in order; a subscription is how far it was read, by whichever instance.

    A subscription begins with the topic's first message, as Slight's own host has it.
    """

    def __init__(self, directory: Path, name: str) -> None:
        path = directory / file_name("unexpected-error", name) / "messages.db"
        self._messages = Database(path, _MESSAGES)
        self._subscriptions = Database(path, _SUBSCRIPTIONS)

    def publish(self, msg: bytes, topic: str) -> None:
        with failing({OSError: "delivery-failed"}):
            self._messages.execute("INSERT INTO messages (topic, body) VALUES (?, ?)", (topic, msg))

    def subscribe(self, topic: str) -> str:
        token = str(uuid.uuid4())
        with failing({}):
            self._subscriptions.execute("INSERT INTO subscriptions VALUES (?, ?, 0)", (token, topic))
        return token

    def receive(self, token: str) -> bytes:
        """Returns the next message; empty if there is none now."""
        with failing({}):
            found = self._subscriptions.execute("SELECT topic, seen FROM subscriptions WHERE token = ?", (token,)).rows
            if not found:
                fail("queue-or-topic-not-found", f"there is no subscription {token}")
            topic, seen = found[0]
            next_one = "SELECT id, body FROM messages WHERE topic = ? AND id > ? ORDER BY id LIMIT 1"
            for number, body in self._messages.execute(next_one, (topic, seen)).rows:
                advance = "UPDATE subscriptions SET seen = ? WHERE token = ? AND seen = ?"
                if self._subscriptions.execute(advance, (number, token, seen)).changes == 1:
                    return bytes(body)  # type: ignore[call-overload,no-any-return]
                return self.receive(token)  # another instance was quicker
            return b""


_MESSAGES = "CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT, body BLOB)"
_SUBSCRIPTIONS = "CREATE TABLE IF NOT EXISTS subscriptions (token TEXT PRIMARY KEY, topic TEXT, seen INTEGER)"


class Mosquitto:
    """A connection to publish, made when it is first needed, and one for each subscription."""

    def __init__(self, capability: Capability, name: str) -> None:
        self._host, port = capability.configs["MOSQUITTO_HOST"], capability.configs["MOSQUITTO_PORT"]
        if not port.isdigit():
            fail(
                "unexpected-error", f"/slightfile.toml: {capability.where}.configs.MOSQUITTO_PORT is {port}, no number"
            )
        self._port = int(port)
        self._publisher: mqtt.Client | None = None
        self._lock = threading.Lock()
        self._subscriptions: dict[str, queue.SimpleQueue[bytes]] = {}

    def publish(self, msg: bytes, topic: str) -> None:
        with failing({ValueError: "unsupported-message-format", OSError: "service-unavailable"}):
            with self._lock:
                self._publisher = self._publisher or self._connect(self._client())
            sent = self._publisher.publish(topic, msg, qos=1)
            sent.wait_for_publish(PATIENCE)
            if not sent.is_published():
                fail("delivery-failed", f"the broker {self._host}:{self._port} did not take the message")

    def subscribe(self, topic: str) -> str:
        with failing({ValueError: "queue-or-topic-not-found", OSError: "service-unavailable"}):
            messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
            granted: queue.SimpleQueue[None] = queue.SimpleQueue()
            client = self._client()
            client.on_message = lambda _client, _data, message: messages.put(bytes(message.payload))
            client.on_subscribe = lambda *_: granted.put(None)
            # Also after a reconnection: the broker may have forgotten.
            client.on_connect = lambda *_: _ignored(client.subscribe(topic, qos=1))
            self._connect(client)
            try:
                granted.get(timeout=PATIENCE)
            except queue.Empty:
                fail("service-unavailable", f"the broker {self._host}:{self._port} grants no subscription")
        token = str(uuid.uuid4())
        self._subscriptions[token] = messages
        return token

    def receive(self, token: str) -> bytes:
        """Wait for the next message."""
        messages = self._subscriptions.get(token)
        if messages is None:
            fail("queue-or-topic-not-found", f"there is no subscription {token}")
        guest = current()
        while not guest.abandoned:
            try:
                return messages.get(timeout=_LOOK)
            except queue.Empty:
                continue
        raise Abandoned

    def _client(self) -> "mqtt.Client":
        from paho.mqtt import client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.connect_timeout = PATIENCE
        return client

    def _connect(self, client: "mqtt.Client") -> "mqtt.Client":
        """:raises OSError: there is no broker"""
        client.connect(self._host, self._port)
        client.loop_start()
        return client


def _ignored(_result: object) -> None:
    """Do nothing, for callbacks without a result."""
