"""An application put together: its components linked, its triggers connected to them."""

from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import wasmtime

from shimd.apps import serving
from shimd.apps.calls import Invoker
from shimd.apps.http.epoch_clock import EpochClock
from shimd.apps.http.handler import INTERFACE, Handler
from shimd.apps.http.server import serve
from shimd.apps.spin import command, cron, files, keyvalue, sockets, sqlite, subscriptions
from shimd.apps.spin.application import SpinServer
from shimd.apps.spin.backends import ServiceError
from shimd.apps.spin.client_tls import contexts
from shimd.apps.spin.clients import Clients, MqttAddress
from shimd.apps.spin.command import CommandService
from shimd.apps.spin.cron import Schedule
from shimd.apps.spin.granted import check_chains, libraries, outbound, resolved
from shimd.apps.spin.model import Application, Component
from shimd.apps.spin.neighbours import Neighbours
from shimd.apps.spin.runtime import Runtime
from shimd.apps.spin.services import Services
from shimd.apps.spin.subscriptions import MqttSubscriber, RedisSubscriber
from shimd.apps.spin.telemetry import Call, Telemetry
from shimd.apps.spin.variables import ApplicationVariables
from shimd.apps.spin.vault import Secrets
from shimd.apps.spin.world import SharedState, imports
from shimd.component.host import Host
from shimd.engine import EngineError, InvalidSetting, UnsupportedFeature
from shimd.engines.http_settings import HttpSettings
from shimd.wasi.http.outgoing import OutgoingHandler, OutgoingRules
from shimd.wasi.trust import Trust
from shimd.wasi.versions import unversioned

CompiledComponent = tuple[wasmtime.Engine, Any]
"""A compiled component, and the engine that it is for."""


class Assembly:
    """An application, ready to run: made and checked before the container is entered, run inside."""

    def __init__(
        self,
        engine: wasmtime.Engine,
        trust: Trust,
        telemetry: Telemetry,
        application: Application,
        programs: Mapping[str, "CompiledComponent"],
        directories: Mapping[str, int],
        runtime: Runtime,
        values: ApplicationVariables,
        settings: HttpSettings,
        arguments: Sequence[str] = (),
        memory: int = -1,
        root: str = "/",
    ) -> None:
        """:param directories: descriptors of the components' files, by component, if they came in layers
        :param memory: the most that an instance may have, bytes
        :param root: the directory that the components' files are below, if they came in no layers

        :raises EngineError: what is wrong with the application, in one sentence
        """
        self._engine, self._application, self._settings = engine, application, settings
        self._directories, self._values, self._root, self._trust = directories, values, root, trust
        self._telemetry = telemetry
        components = application.components
        self._late = {id: list(filter(values.asks, one.allowed_outbound_hosts)) for id, one in components.items()}
        """Hosts that are not known before servers are asked for variables."""
        self._allowed = allowed = {id: outbound(one, values) for id, one in components.items()}
        networking = runtime.networking
        self._clients = Clients(libraries(application, runtime, allowed, self._late), trust, networking)
        self._neighbours = {id: Neighbours(allowed[id]) for id in allowed}
        self._outgoing = {
            id: OutgoingHandler(trust, allowed[id], _rules(self._clients, id, trust, self._neighbours[id], telemetry))
            for id in allowed
        }
        self._preopens = {id: files.SpinPreopens() for id in application.components}
        stores = {label: keyvalue.opener(where, self._clients) for label, where in runtime.stores.items()}
        self._backends = Services(trust, telemetry.headers)
        databases = {label: sqlite.opener(where, self._backends) for label, where in runtime.databases.items()}
        shared = SharedState(
            arguments, values, stores, databases, self._clients, self._backends, runtime.models, telemetry
        )
        self._hosts = {
            id: _link(
                *programs[id],
                component,
                {
                    **imports(component, shared, allowed[id], self._outgoing[id], self._preopens[id]),
                    **sockets.interfaces(allowed[id], networking.destinations),
                },
                memory,
                telemetry,
            )
            for id, component in application.components.items()
        }
        self._check_exports()
        self._calls: dict[str, Invoker] = {}
        self._services: list[serving.Service] = []
        if not self._unknown:
            self._connect()

    def run(self) -> int:
        """Run the application, inside the container; returns the exit code.

        :raises EngineError: a file is not there, the address is taken, a trigger has ended
        """
        serving.hold_signals()
        if self._unknown:
            self._ask()
        for id, component in self._application.components.items():
            directory = self._directories.get(id)
            self._preopens[id].root = directory if directory is not None else files.tree(component, self._root)
        around: list[Any] = [self._telemetry, self._backends, *self._outgoing.values(), *self._calls.values()]
        if not self._application.triggers.http:
            return anyio.run(serving.serve, self._services, around, self._settings.grace)
        clock = EpochClock(self._engine)
        server = SpinServer(self._application, self._handlers(clock), self._telemetry)
        for one in self._neighbours.values():
            one.server = server
        watched = self._telemetry.server(server)
        return serve(watched, self._settings, [*around, clock, server], services=self._services)

    @property
    def _unknown(self) -> list[str]:
        """The templates that have to be known before the application starts, and are not before servers are asked."""
        hosts = [entry for entries in self._late.values() for entry in entries]
        return [*hosts, *filter(self._values.asks, self._application.triggers.templates)]

    def _ask(self) -> None:
        """Ask for the variables that the application needs to start.

        :raises EngineError: a server does not give one, or what it gives is none that could be there
        """
        try:
            self._values = anyio.run(self._asked, self._unknown)
        except ServiceError as error:
            raise EngineError(f"the application cannot start: {error}") from None
        for id, entries in self._late.items():
            allowed = self._allowed[id]
            allowed.add(resolved(entries, self._values, allowed.where))
        self._connect()

    async def _asked(self, templates: Sequence[str]) -> ApplicationVariables:
        async with Services(self._trust) as services:
            return await self._values.now(templates, Secrets(services).read)

    def _connect(self) -> None:
        """Connect triggers and components, now that all that they need is known."""
        check_chains(self._application, self._allowed)
        self._services = [*self._redis(), *self._cron(), *self._mqtt(), *self._commands()]

    def _handlers(self, clock: EpochClock) -> dict[str, Handler]:
        """Returns the handlers of the components that answer requests."""
        return {
            id: Handler(
                self._hosts[id],
                clock,
                pool=self._settings.pool,
                concurrency=self._settings.concurrency,
                timeout=self._settings.timeout,
                name=id,
            )
            for id in self._application.triggers.answering
        }

    def _check_exports(self) -> None:
        triggers = self._application.triggers
        needed = [
            *((id, "http", INTERFACE) for id in triggers.answering),
            *((trigger.component, "redis", subscriptions.REDIS) for trigger in triggers.redis),
            *((trigger.component, "cron", cron.FUNCTION) for trigger in triggers.cron),
            *((trigger.component, "mqtt", subscriptions.MQTT_FUNCTION) for trigger in triggers.mqtt),
            *((trigger.component, "command", command.INTERFACE) for trigger in triggers.command),
        ]
        for id, kind, name in needed:
            if self._hosts[id].export(name) is None:
                where = self._application.components[id].where
                raise UnsupportedFeature(f"{where}: it exports no {name}, which its {kind} trigger calls")

    def _call(self, trigger: str, id: str, source: str = "") -> Call:
        if id not in self._calls:
            self._calls[id] = Invoker(self._hosts[id], id, concurrency=self._settings.concurrency)
        return self._telemetry.call(trigger, id, source, self._calls[id])

    def _redis(self) -> Sequence[RedisSubscriber]:
        """Make the redis triggers' subscribers: one for each server."""
        servers: dict[str, dict[str, list[Call]]] = {}
        places: dict[str, str] = {}
        for trigger in self._application.triggers.redis:
            address = self._values.resolve(trigger.address, f"{trigger.where}.address")
            channel = self._values.resolve(trigger.channel, f"{trigger.where}.channel")
            call = self._call("redis", trigger.component, channel)
            servers.setdefault(address, {}).setdefault(channel, []).append(call)
            places.setdefault(address, f"{trigger.where}.address")
        found = []
        for address, channels in servers.items():
            try:
                found.append(RedisSubscriber(self._clients, address, channels))
            except ValueError as error:
                raise InvalidSetting(f"{places[address]}: {error}") from None
        return found

    def _cron(self) -> Sequence[Schedule]:
        triggers = self._application.triggers.cron
        entries = [(trigger.expression, self._call("cron", trigger.component)) for trigger in triggers]
        return [Schedule(entries)] if entries else []

    def _commands(self) -> Sequence[CommandService]:
        ids = [trigger.component for trigger in self._application.triggers.command]
        return [CommandService(self._hosts[id], id, self._telemetry) for id in ids]

    def _mqtt(self) -> Sequence[MqttSubscriber]:
        server = self._application.triggers.mqtt_server
        if server is None:
            return []
        where = f"{self._application.file}: application.trigger.mqtt"
        texts = {"address": server.address, "username": server.username, "password": server.password}
        url, username, password = [self._values.resolve(text, f"{where}.{name}") for name, text in texts.items()]
        try:
            address = MqttAddress.parse(url, username, password, server.keep_alive)
        except ValueError as error:
            raise InvalidSetting(f"{where}.address: {error}") from None
        found = []
        for trigger in self._application.triggers.mqtt:
            topic = self._values.resolve(trigger.topic, f"{trigger.where}.topic")
            call = self._call("mqtt", trigger.component, topic)
            found.append(MqttSubscriber(self._clients, address, topic, trigger.qos, call))
        return found


def _rules(
    clients: Clients, component: str, trust: Trust, neighbours: Neighbours, telemetry: Telemetry
) -> OutgoingRules:
    networking, limit = clients.networking, clients.limits.of("http")
    return OutgoingRules(
        networking.destinations,
        contexts(networking.tls, component, trust),
        limit,
        keeps=networking.pooling and not limit,  # one that is kept would count
        neighbour=neighbours,
        watched=telemetry.sender,
    )


def _link(
    engine: wasmtime.Engine,
    program: Any,
    component: Component,
    given: Mapping[str, Any],
    memory: int,
    telemetry: Telemetry,
) -> Host:
    try:
        return Host(engine, program, given, unversioned, memory, telemetry.function)
    except UnsupportedFeature as error:
        raise UnsupportedFeature(f"{component.where}: {error}") from None
