"""A Spin application, whichever manifest describes it: ``spin.toml`` or a locked application of an image."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from shimd.apps.spin.allowed import CHAINED, neighbour
from shimd.apps.spin.routes import SpinRoute
from shimd.engine import Content, InvalidSetting, Layer

#: How variables are named, in manifests and by guests (https://spinframework.dev/variables).
VARIABLE_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*\Z")


@dataclass(frozen=True)
class Variable:
    default: str | None
    """``None``: it is required."""


@dataclass(frozen=True)
class FileMount:
    """Files that a component sees: those that a glob finds, or one directory (or file) at a place of its own."""

    source: str
    destination: str | None = None


@dataclass(frozen=True)
class Dependency:
    """Another component that one is composed with: for imports of its, or to be called before it is."""

    where: str
    """The manifest and the field that describe it, for messages."""
    name: str
    """The imports that it is for; empty: it is middleware."""
    source: str | Layer
    """As a component's; or a component's id."""
    is_id: bool = False
    export: str | None = None
    """The one of its exports that is taken; ``None``: those of the imports' names."""
    inherits: tuple[str, ...] = ()
    """The keys of the component's configuration that it has, too (:mod:`.inherited`)."""


@dataclass(frozen=True)
class Component:
    id: str
    where: str
    """The manifest and the field that describe it, for messages."""
    source: str | Layer
    """The source of its module: a path relative to the manifest, or a layer of the image."""
    environment: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    """Templates."""
    allowed_outbound_hosts: tuple[str, ...] = ()
    key_value_stores: tuple[str, ...] = ()
    sqlite_databases: tuple[str, ...] = ()
    ai_models: tuple[str, ...] = ()
    files: tuple[FileMount, ...] = ()
    exclude_files: tuple[str, ...] = ()
    contents: Mapping[str, Content] = field(default_factory=dict)
    """The component's files, by the guest's paths, where they come in an image's layers; then ``files`` is empty."""
    dependencies: tuple[Dependency, ...] = ()
    middleware: tuple[Dependency, ...] = ()
    """What handles requests before it does, the outermost first."""

    @property
    def composed(self) -> bool:
        """Whether it is put together with others."""
        return bool(self.dependencies or self.middleware)


@dataclass(frozen=True)
class RedisTrigger:
    where: str
    component: str
    channel: str
    """A template, as the address."""
    address: str


@dataclass(frozen=True)
class CronTrigger:
    where: str
    component: str
    expression: str


@dataclass(frozen=True)
class MqttTrigger:
    where: str
    component: str
    topic: str
    """A template."""
    qos: int


@dataclass(frozen=True)
class MqttServer:
    """The server of the mqtt triggers; all but the interval are templates."""

    address: str
    username: str
    password: str
    keep_alive: int
    """Seconds."""


@dataclass(frozen=True)
class CommandTrigger:
    where: str
    component: str


@dataclass(frozen=True)
class Triggers:
    """The triggers, which call the components."""

    http: tuple[SpinRoute, ...] = ()
    redis: tuple[RedisTrigger, ...] = ()
    cron: tuple[CronTrigger, ...] = ()
    mqtt: tuple[MqttTrigger, ...] = ()
    mqtt_server: MqttServer | None = None
    command: tuple[CommandTrigger, ...] = ()

    def retaining(self, ids: frozenset[str]) -> "Triggers":
        """Returns only the triggers that call the components ``ids``."""
        mqtt = tuple(trigger for trigger in self.mqtt if trigger.component in ids)
        return replace(
            self,
            http=tuple(route for route in self.http if route.component in ids),
            redis=tuple(trigger for trigger in self.redis if trigger.component in ids),
            cron=tuple(trigger for trigger in self.cron if trigger.component in ids),
            mqtt=mqtt,
            mqtt_server=self.mqtt_server if mqtt else None,
            command=tuple(trigger for trigger in self.command if trigger.component in ids),
        )

    @property
    def templates(self) -> list[str]:
        """All that variables are put into before anything listens."""
        found = [text for trigger in self.redis for text in (trigger.address, trigger.channel)]
        if self.mqtt_server is not None:
            found += [self.mqtt_server.address, self.mqtt_server.username, self.mqtt_server.password]
        return [*found, *(trigger.topic for trigger in self.mqtt)]

    @property
    def answering(self) -> list[str]:
        """The components that HTTP triggers call."""
        return list(dict.fromkeys(route.component for route in self.http if route.component))

    @property
    def called(self) -> frozenset[str]:
        """All components that triggers call."""
        others: Iterable[RedisTrigger | CronTrigger | MqttTrigger | CommandTrigger]
        others = chain(self.redis, self.cron, self.mqtt, self.command)
        return frozenset((*self.answering, *(trigger.component for trigger in others)))


@dataclass(frozen=True)
class Application:
    file: str
    """The name of the manifest, for messages."""
    name: str
    version: str
    variables: Mapping[str, Variable]
    components: Mapping[str, Component]
    triggers: Triggers

    def retaining(self, ids: str) -> "Application":
        """Returns the application with those components only (``SPIN_COMPONENTS_TO_RETAIN``, comma-separated; empty:
        all), and with none that no trigger calls: such a one would never run, and may be for others only.

        :raises InvalidSetting: there is none of a name, nothing is left, or what is left calls what is not
        """
        chosen = frozenset(id.strip() for id in ids.split(",") if id.strip())
        for id in sorted(chosen):
            if id not in self.components:
                raise InvalidSetting(f"SPIN_COMPONENTS_TO_RETAIN names {id}, which {self.file} has not")
        kept = replace(self, triggers=self.triggers.retaining(chosen)) if chosen else self
        called = kept.triggers.called
        if chosen and not called:
            raise InvalidSetting(f"SPIN_COMPONENTS_TO_RETAIN={ids}: no trigger of {self.file} calls what it names")
        found = {id: component for id, component in self.components.items() if id in called}
        if chosen:
            _check_neighbours(found, chosen)
        return replace(kept, components=found)


def _check_neighbours(components: Mapping[str, Component], kept: frozenset[str]) -> None:
    """Check that none of the components calls another that is left out; as Spin, by entries that are no templates."""
    for component in components.values():
        for other in filter(None, map(neighbour, component.allowed_outbound_hosts)):
            where = f"{component.where}.allowed_outbound_hosts names {other}{CHAINED}"
            if other == "*":
                raise InvalidSetting(f"{where}, and SPIN_COMPONENTS_TO_RETAIN may leave some of them out: name each")
            if other not in kept:
                raise InvalidSetting(f"{where}, which SPIN_COMPONENTS_TO_RETAIN leaves out")
