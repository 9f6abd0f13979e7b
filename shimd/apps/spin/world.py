"""The imports of a Spin component (the world ``fermyon:spin/http-trigger`` of SDK 2 and 3, WASI 0.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shimd.apps.spin.allowed import AllowedHosts
from shimd.apps.spin.backends import Models
from shimd.apps.spin.clients import Clients
from shimd.apps.spin.files import SpinPreopens
from shimd.apps.spin.given_variables import ComponentVariables, ConfigStore, Variables
from shimd.apps.spin.keyvalue import Atomics, Batch, KeyValueStores, OpenStore
from shimd.apps.spin.llm import Llm
from shimd.apps.spin.model import Component
from shimd.apps.spin.outbound.interfaces import servers
from shimd.apps.spin.services import Services
from shimd.apps.spin.sqlite import Databases, OpenDatabase
from shimd.apps.spin.telemetry import Telemetry
from shimd.apps.spin.variables import ApplicationVariables
from shimd.apps.spin.vault import Secrets
from shimd.engine import Invocation
from shimd.wasi.world import TypesOnly, providers

#: Interfaces of types only, besides WASI's.
_TYPES = (
    "fermyon:spin/rdbms-types@2.0.0",
    "fermyon:spin/redis-types",
    "fermyon:spin-cron/cron-types@2.0.0",
    "spin:mqtt-trigger/spin-mqtt-types",
)


@dataclass(frozen=True)
class SharedState:
    """The objects that the components of an application share."""

    arguments: Sequence[str]
    values: ApplicationVariables
    stores: Mapping[str, OpenStore]
    databases: Mapping[str, OpenDatabase]
    clients: Clients
    services: Services
    models: Models | None
    telemetry: Telemetry


def imports(
    component: Component, shared: SharedState, allowed: AllowedHosts, outgoing: object, preopens: SpinPreopens
) -> Mapping[str, Any]:
    """Returns the providers of one component, by interface."""
    given = ComponentVariables(shared.values, component, Secrets(shared.services).read)
    own_stores = KeyValueStores(shared.stores, component.key_value_stores)
    own_databases = Databases(shared.databases, component.sqlite_databases)
    return {
        **providers(Invocation([component.id, *shared.arguments], env=component.environment), outgoing),
        **shared.telemetry.streams(component.id),
        "wasi:filesystem/preopens": preopens,
        "fermyon:spin/variables@2.0.0": Variables(given),
        "wasi:config/store@0.2.0-draft-2024-09-27": ConfigStore(given),
        "fermyon:spin/key-value@2.0.0": own_stores,
        "wasi:keyvalue/store@0.2.0-draft2": own_stores,
        "wasi:keyvalue/atomics@0.2.0-draft2": Atomics(),
        "wasi:keyvalue/batch@0.2.0-draft2": Batch(),
        "fermyon:spin/sqlite@2.0.0": own_databases,
        "spin:sqlite/sqlite@3.0.0": own_databases,
        "fermyon:spin/llm@2.0.0": Llm(shared.services, shared.models, component.ai_models),
        **servers(shared.clients, allowed),
        **{name: TypesOnly() for name in _TYPES},
    }
