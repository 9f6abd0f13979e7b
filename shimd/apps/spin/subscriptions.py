"""The redis and mqtt triggers: services that call components with the messages of their channels and topics.

Messages of one connection are handled one by one, as in Spin: their order is kept. A connection that is lost for good
ends the trigger, and with it the app; Kubernetes starts it again.
"""

from collections.abc import AsyncIterator, Mapping, Sequence

import anyio

from shimd.apps.serving import StopScope
from shimd.apps.spin.clients import Clients, MqttAddress, MqttMessage, mqtt_errors, redis_errors, shown
from shimd.apps.spin.telemetry import Call
from shimd.engine import EngineError

#: What a component exports.
REDIS, REDIS_FUNCTION = "fermyon:spin/inbound-redis", "handle-message"
MQTT_FUNCTION = "handle-message"


class RedisSubscriber:
    """The subscriber of one server: ``channels`` with the components that listen there."""

    def __init__(self, clients: Clients, address: str, channels: Mapping[str, Sequence[Call]]) -> None:
        """:raises ValueError: the address is no URL of redis"""
        self._client = clients.redis(address)
        self._address = address
        self._channels = channels
        self._work = StopScope()

    async def run(self) -> None:
        with self._work.waiting():
            try:
                await self._listen()
            except redis_errors() as error:
                raise EngineError(f"the redis trigger lost {shown(self._address)}: {error}") from None

    def stop(self) -> None:
        self._work.stop()

    async def _listen(self) -> None:
        async with self._client as client, client.pubsub(ignore_subscribe_messages=True) as messages:
            await messages.subscribe(*self._channels)
            async for message in messages.listen():
                calls = self._channels.get(message["channel"].decode(), ())
                with anyio.CancelScope(shield=True):  # what has begun is finished
                    async with anyio.create_task_group() as tasks:
                        for call in calls:
                            tasks.start_soon(call, REDIS, REDIS_FUNCTION, message["data"])


class MqttSubscriber:
    """The subscriber of one topic, with a connection of its own: topics may overlap."""

    def __init__(self, clients: Clients, server: MqttAddress, topic: str, qos: int, call: Call) -> None:
        self._clients, self._server = clients, server
        self._topic, self._qos = topic, qos
        self._call = call
        self._work = StopScope()

    async def run(self) -> None:
        with self._work.waiting():
            try:
                async with self._clients.mqtt(self._server) as client:
                    await client.subscribe(self._topic, self._qos)
                    await self._listen(client.messages)
            except mqtt_errors() as error:
                raise EngineError(f"the mqtt trigger lost {self._server.shown}: {error}") from None

    def stop(self) -> None:
        self._work.stop()

    async def _listen(self, messages: AsyncIterator[MqttMessage]) -> None:
        async for message in messages:
            with anyio.CancelScope(shield=True):
                await self._call("", MQTT_FUNCTION, message.payload, {"topic": str(message.topic)})
