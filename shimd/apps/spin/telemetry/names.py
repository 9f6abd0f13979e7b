"""The names of what components call, in spans: Spin's, by which dashboards know them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from shimd.component.providers import unversioned

#: By interface: what the names of its functions are put behind, and the kind of a database.
_INTERFACES = {
    "fermyon:spin/key-value": ("spin_key_value", ""),
    "wasi:keyvalue/store": ("wasi_key_value", ""),
    "wasi:keyvalue/atomics": ("spin_key_value", ""),
    "wasi:keyvalue/batch": ("spin_key_value", ""),
    "fermyon:spin/sqlite": ("spin_sqlite", "sqlite"),
    "spin:sqlite/sqlite": ("spin_sqlite", "sqlite"),
    "fermyon:spin/variables": ("spin_variables", ""),
    "wasi:config/store": ("wasi_config", ""),
    "fermyon:spin/llm": ("spin_llm", ""),
    "fermyon:spin/redis": ("spin_outbound_redis", "redis"),
    "fermyon:spin/mqtt": ("spin_outbound_mqtt", ""),
    "fermyon:spin/mysql": ("spin_outbound_mysql", "mysql"),
    "fermyon:spin/postgres": ("spin_outbound_pg", "postgresql"),
    "spin:postgres/postgres": ("spin_outbound_pg", "postgresql"),
}
#: Names of their own.
_OWN = {
    "spin_outbound_redis.open": "spin_outbound_redis.open_connection",
    "spin_outbound_redis.publish": "PUBLISH",
    "spin_outbound_redis.get": "GET",
    "spin_outbound_redis.set": "SET",
    "spin_outbound_redis.incr": "INCRBY",
    "spin_outbound_redis.del": "DEL",
    "spin_outbound_redis.sadd": "SADD",
    "spin_outbound_redis.smembers": "SMEMBERS",
    "spin_outbound_redis.srem": "SREM",
    "spin_outbound_mqtt.open": "spin_outbound_mqtt.open_connection",
}
#: What opens a connection to a server, by its address.
_CONNECTS = frozenset({f"spin_outbound_{kind}.open" for kind in ("redis", "mqtt", "mysql", "pg")})


@dataclass(frozen=True)
class Called:
    """A function as spans name it."""

    plain: str
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def produces(self) -> bool:
        """Whether somebody else will be given what it sends."""
        return self.plain == "spin_outbound_mqtt.publish"

    def name(self, arguments: Sequence[Any]) -> str:
        if self.plain == "spin_outbound_redis.execute":
            return str(arguments[1])
        return _OWN.get(self.plain, self.plain)

    def told(self, arguments: Sequence[Any]) -> dict[str, str | int]:
        """Returns the attributes of a call; a resource's method has that as the first of its arguments."""
        found: dict[str, str | int] = {**self.attributes}
        if self.plain in _CONNECTS:
            found |= _server(arguments[0])
        elif self.produces:
            found["messaging.destination.name"] = arguments[1]
        return found


def called(interface: str, function: str) -> Called | None:
    """Returns how calls of an imported function are told; ``None``: they are not.

    :param function: as the interface has it: ``get``, ``[method]store.get``
    """
    found = _INTERFACES.get(unversioned(interface))
    if found is None or function.startswith("[constructor"):
        return None
    prefix, database = found
    plain = function.rpartition(".")[2].replace("-", "_")
    return Called(f"{prefix}.{plain}", {"db.system.name": database} if database else {})


def _server(address: str) -> dict[str, str | int]:
    """Returns the host and the port of a URL, and none of its secrets."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return {}
    return {**({"server.address": host} if host else {}), **({"server.port": port} if port else {})}
