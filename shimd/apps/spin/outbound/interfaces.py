"""The interfaces of servers, by their names: for whichever host runs a component."""

from collections.abc import Callable, Mapping
from functools import partial

from shimd.apps.spin.allowed import AllowedHosts
from shimd.apps.spin.clients import Clients
from shimd.apps.spin.outbound.mqtt import Mqtt
from shimd.apps.spin.outbound.mysql import Mysql
from shimd.apps.spin.outbound.pgtypes import V2, V3, V4
from shimd.apps.spin.outbound.postgres import Postgres
from shimd.apps.spin.outbound.redis import Redis

INTERFACES: Mapping[str, Callable[[Clients, AllowedHosts], object]] = {
    "fermyon:spin/redis@2.0.0": Redis,
    "spin:redis/redis@3.0.0": Redis,
    "fermyon:spin/mqtt@2.0.0": Mqtt,
    "spin:mqtt/mqtt@3.0.0": Mqtt,
    "fermyon:spin/mysql@2.0.0": Mysql,
    "spin:mysql/mysql@3.0.0": partial(Mysql, streams=True),
    "fermyon:spin/postgres@2.0.0": partial(Postgres, version=V2),
    "spin:postgres/postgres@3.0.0": partial(Postgres, version=V3),
    "spin:postgres/postgres@4.0.0": partial(Postgres, version=V4),
    "spin:postgres/postgres@4.1.0": partial(Postgres, version=V4),
    "spin:postgres/postgres@4.2.0": partial(Postgres, version=V4),
}
"""What makes the object that gives each."""


def servers(clients: Clients, allowed: AllowedHosts) -> Mapping[str, object]:
    """Returns the objects for one component."""
    return {name: make(clients, allowed) for name, make in INTERFACES.items()}
