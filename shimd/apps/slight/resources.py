"""The resources that a slightfile may name: the configs that each needs, and those that shimd does not have."""

from collections.abc import Mapping, Sequence

#: Names of specversion 0.1, and what they are now.
OLD_NAMES: Mapping[str, str] = {
    **{f"kv.{backend}": f"keyvalue.{backend}" for backend in ("awsdynamodb", "azblob", "filesystem", "redis")},
    **{f"mq.{backend}": f"messaging.{backend}" for backend in ("azsbus", "filesystem")},
    "lockd.etcd": "distributed_locking.etcd",
}

#: The resources that shimd has, with the configs that they need.
CONFIGS: Mapping[str, Sequence[str]] = {
    "http": (),
    "http-client": (),
    "keyvalue.filesystem": (),
    "keyvalue.redis": ("REDIS_ADDRESS",),
    "messaging.filesystem": (),
    "messaging.mosquitto": ("MOSQUITTO_HOST", "MOSQUITTO_PORT"),
    "configs.envvars": (),
    "configs.usersecrets": (),
    "distributed_locking.etcd": ("ETCD_ENDPOINT",),
    "sql.postgres": ("POSTGRES_CONNECTION_URL",),
}

#: Packages that a resource's module imports: they are loaded before an app is in its container (``shimd[slight]``).
PACKAGES: Mapping[str, str] = {
    "keyvalue.redis": "redis",
    "messaging.mosquitto": "paho.mqtt.client",
    "sql.postgres": "psycopg",
}

_CLOUD = "a cloud's service that shimd does not connect to: use "
_KEYVALUE = f"{_CLOUD}keyvalue.filesystem, or keyvalue.redis with configs.REDIS_ADDRESS"
_MESSAGING = (
    f"{_CLOUD}messaging.filesystem, or messaging.mosquitto with configs.MOSQUITTO_HOST and configs.MOSQUITTO_PORT"
)
CLOUD: Mapping[str, str] = {
    **{f"keyvalue.{backend}": _KEYVALUE for backend in ("awsdynamodb", "azblob")},
    "keyvalue.dapr": "whose sidecar shimd does not ask: use keyvalue.redis with configs.REDIS_ADDRESS",
    **{f"messaging.{backend}": _MESSAGING for backend in ("azsbus", "confluent_apache_kafka", "nats")},
    **{
        f"blobstore.{backend}": f"{_KEYVALUE} (of blob stores Slight has clouds' only)"
        for backend in ("aws_s3", "azblob")
    },
    "configs.azapp": f"{_CLOUD}configs.envvars, and variables of the container",
}
