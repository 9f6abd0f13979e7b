"""What ``/runtime-config.toml`` says of the network: blocked networks, client certificates, limits of connections."""

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shimd.apps.spin import keys
from shimd.apps.spin.fields import ManifestTable
from shimd.apps.spin.place import Place
from shimd.wasi.destinations import Destinations, Network

if TYPE_CHECKING:
    from shimd.apps.spin.client_tls import ClientTls

#: The protocols, by the tables that limit their connections.
KINDS = {
    "outbound_http": "http",
    "outbound_redis": "redis",
    "outbound_pg": "postgres",
    "outbound_mysql": "mysql",
    "outbound_mqtt": "mqtt",
}
#: Those that have servers of their own kind, each with the schemes of their addresses.
SERVERS = {
    "redis": ("redis", "rediss"),
    "postgres": ("postgres", "postgresql"),
    "mysql": ("mysql",),
    "mqtt": ("mqtt", "mqtts"),
}


def kind_of(interface: str) -> str:
    """Returns the protocol of an interface's servers: one of :data:`SERVERS`, if it is of any."""
    return interface.partition("/")[2].partition("@")[0]


@dataclass(frozen=True, eq=False)
class Most:
    """A number of connections that may be open at a time; protocols that have the same one share it."""

    number: int


@dataclass(frozen=True)
class Networking:
    destinations: Destinations = field(default_factory=Destinations)
    tls: "Sequence[ClientTls]" = ()
    limits: Mapping[str, Sequence[Most]] = field(default_factory=dict)
    """By protocol, of :data:`KINDS`: its own, and that of all."""
    pooling: bool = True
    """Whether connections by HTTP are kept for further requests."""
    payload: int | None = None
    """The most bytes of a message by MQTT."""

    def most(self, kind: str) -> int | None:
        """Returns the most connections of a protocol that may be open; ``None``: any number."""
        return min((limit.number for limit in self.limits.get(kind, ())), default=None)


def networking(table: ManifestTable, place: Place, components: Collection[str]) -> Networking:
    """:param components: the application's

    :raises InvalidSetting: what is wrong, and where
    """
    own = table.table("outbound_networking", optional=True).of(keys.OUTBOUND_NETWORKING)
    tables = {name: table.table(name, optional=True).of(allowed) for name, allowed in keys.OUTBOUND.items()}
    total = _most(own, "max_total_connections")
    return Networking(
        destinations=_destinations(own),
        tls=_tls(table.tables("client_tls"), place, components),
        limits={KINDS[name]: (*_own_limit(one), *total) for name, one in tables.items()},
        pooling=tables["outbound_http"].flag("connection_pooling", True),
        payload=tables["outbound_mqtt"].number("max_payload_size_bytes"),
    )


def _destinations(table: ManifestTable) -> Destinations:
    blocked = table.strings("block_networks")
    networks = [_network(table, text) for text in blocked if text != "private"]
    return Destinations(networks, private="private" in blocked)


def _network(table: ManifestTable, text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise table.wrong("block_networks", f'has "{text}", which is neither ADDRESS/BITS nor "private"') from None


def _own_limit(table: ManifestTable) -> list[Most]:
    old = table.number("max_concurrent_requests")
    if old is None:
        return _most(table, "max_connections")
    if "max_connections" in table.values:
        raise table.wrong("max_concurrent_requests", "is the older name of max_connections: leave one of them out")
    return [Most(old + 1)]  # so Spin had it count


def _most(table: ManifestTable, name: str) -> list[Most]:
    most = table.number(name)
    if most == 0:
        raise table.wrong(name, "is 0, which allows no connection: leave the hosts out of allowed_outbound_hosts")
    return [] if most is None else [Most(most)]


def _tls(tables: Sequence[ManifestTable], place: Place, components: Collection[str]) -> "Sequence[ClientTls]":
    if not tables:
        return ()
    from shimd.apps.spin import client_tls  # with a library that few need

    return [client_tls.parse(one.of(keys.CLIENT_TLS), place, components) for one in tables]
