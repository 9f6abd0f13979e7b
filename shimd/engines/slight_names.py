"""Names of Slight's interfaces."""

from collections.abc import Mapping

NAMES = (
    "blob-store", "configs", "distributed-locking", "http-client", "http-server", "keyvalue", "messaging", "sql",
)  # fmt: skip
#: Those of Slight before 0.3, and what they are now.
BEFORE: Mapping[str, str] = {
    "kv": "keyvalue", "mq": "messaging", "pubsub": "messaging", "lockd": "distributed-locking", "http": "http-server",
}  # fmt: skip
