"""What a dependency inherits of its component's configuration, and which interfaces it has no access to without that.

The keys and their interfaces are Spin's (its crate ``capabilities``), in all versions: what a dependency does not
inherit is denied in each. Interfaces that reach nothing of the component's, ``wasi:clocks`` say, are always there.
"""

from collections.abc import Sequence

#: The interfaces of each key of a component's configuration, without versions.
KEYS = {
    "ai_models": ("fermyon:spin/llm",),
    "allowed_outbound_hosts": (
        "fermyon:spin/http",
        "fermyon:spin/mqtt",
        "fermyon:spin/mysql",
        "fermyon:spin/postgres",
        "fermyon:spin/redis",
        "spin:mqtt/mqtt",
        "spin:mysql/mysql",
        "spin:postgres/postgres",
        "spin:redis/redis",
        "wasi:http/client",
        "wasi:http/outgoing-handler",
        "wasi:sockets/ip-name-lookup",
        "wasi:sockets/tcp",
        "wasi:sockets/tcp-create-socket",
        "wasi:sockets/types",
        "wasi:sockets/udp",
        "wasi:sockets/udp-create-socket",
    ),
    "environment": ("wasi:cli/environment",),
    "files": ("wasi:filesystem/preopens",),
    "key_value_stores": (
        "fermyon:spin/key-value",
        "spin:key-value/key-value",
        "wasi:keyvalue/atomics",
        "wasi:keyvalue/batch",
        "wasi:keyvalue/store",
    ),
    "sqlite_databases": ("fermyon:spin/sqlite", "spin:sqlite/sqlite"),
    "variables": (
        "fermyon:spin/config",
        "fermyon:spin/variables",
        "spin:variables/variables",
        "wasi:config/store",
    ),
}
ALL = tuple(KEYS)


def denied(keys: Sequence[str]) -> list[str]:
    """Returns the interfaces, without versions, that are denied to what inherits those keys."""
    return [interface for key, interfaces in KEYS.items() if key not in keys for interface in interfaces]
