"""The imports of a Spin component (the world ``fermyon:spin/http-trigger`` of SDK 2 and 3, WASI 0.2)."""

from collections.abc import Mapping
from typing import Any

from shimd.apps.spin.files import Preopens
from shimd.apps.spin.keyvalue import Atomics, Batch, Stores
from shimd.apps.spin.model import Component
from shimd.apps.spin.runtime import Runtime
from shimd.apps.spin.sqlite import Databases
from shimd.apps.spin.variables import Config, Values, Variables
from shimd.engines.base import Invocation
from shimd.wasi.world import Nothing, providers

#: What is not there yet: a component may import it, and is told so if it calls it.
_LATER = (
    "fermyon:spin/llm@2.0.0",
    "fermyon:spin/mqtt@2.0.0",
    "fermyon:spin/mysql@2.0.0",
    "fermyon:spin/postgres@2.0.0",
    "fermyon:spin/rdbms-types@2.0.0",
    "fermyon:spin/redis@2.0.0",
    "spin:postgres/postgres@3.0.0",
    "spin:postgres/postgres@4.0.0",
)


def imports(
    component: Component, values: Values, runtime: Runtime, outgoing: object, preopens: Preopens
) -> Mapping[str, Any]:
    """By interface, for one component."""
    given = values.of(component)
    stores = Stores(runtime.stores, component.key_value_stores)
    databases = Databases(runtime.databases, component.sqlite_databases)
    common = providers(Invocation([component.id], env=component.environment), outgoing)
    return {
        **common,
        "wasi:filesystem/preopens": preopens,
        "fermyon:spin/variables@2.0.0": Variables(given),
        "wasi:config/store@0.2.0-draft-2024-09-27": Config(given),
        "fermyon:spin/key-value@2.0.0": stores,
        "wasi:keyvalue/store@0.2.0-draft2": stores,
        "wasi:keyvalue/atomics@0.2.0-draft2": Atomics(),
        "wasi:keyvalue/batch@0.2.0-draft2": Batch(),
        "fermyon:spin/sqlite@2.0.0": databases,
        "spin:sqlite/sqlite@3.0.0": databases,
        **{name: Nothing() for name in _LATER},
    }
