"""``fermyon:spin/mqtt@2.0.0`` and ``spin:mqtt/mqtt@3.0.0``: publishing."""

from contextlib import suppress
from typing import Any

from anyio import from_thread

from shimd.apps.spin.allowed import AllowedHosts
from shimd.apps.spin.clients import Clients, MqttAddress, mqtt_errors
from shimd.apps.spin.limits import ConnectionLimit
from shimd.component.results import Case, Err
from shimd.wasi.waiting import wait_for

_QOS = {"at-most-once": 0, "at-least-once": 1, "exactly-once": 2}


class Mqtt:
    """The interface; ``MqttConnection`` has its static function."""

    def __init__(self, clients: Clients, allowed: AllowedHosts) -> None:
        self._clients = clients
        self._allowed = allowed
        self.Connection = self

    def open(self, address: str, username: str, password: str, keep_alive: int) -> "MqttConnection":
        try:
            server = MqttAddress.parse(address, username, password, keep_alive)
        except ValueError:
            raise Err(Case("invalid-address")) from None
        if not self._allowed.allows("mqtts" if server.tls else "mqtt", server.host, server.port):
            raise Err(Case("connection-failed", f"address {server.shown} is not permitted"))
        networking = self._clients.networking
        limit = self._clients.limits.of("mqtt")
        try:
            with limit.opening():
                return MqttConnection(wait_for(self._connect, server), limit, networking.payload)
        except mqtt_errors() as error:
            raise Err(Case("connection-failed", str(error))) from None

    async def _connect(self, server: MqttAddress) -> Any:
        return await self._clients.reach(
            server.host, server.port, lambda at: self._clients.mqtt(server, at).__aenter__()
        )


class MqttConnection:
    def __init__(self, client: Any, limit: ConnectionLimit, most: int | None) -> None:
        self._client = client
        self._limit, self._most = limit, most

    def close(self) -> None:
        try:
            with suppress(*mqtt_errors()):  # it was lost before
                from_thread.run(self._client.__aexit__, None, None, None)
        finally:
            self._limit.closed()

    def publish(self, topic: str, payload: bytes, qos: str) -> None:
        """Returns once the server has it, as far as its quality of service says so."""
        if self._most is not None and len(payload) > self._most:
            raise Err(Case("other", f"a message has at most {self._most} bytes, and this one has {len(payload)}"))
        try:
            wait_for(self._client.publish, topic, payload, _QOS[qos])
        except mqtt_errors() as error:
            raise Err(Case("other", str(error))) from None
