"""``distributed-locking``: etcd's locks, by its JSON gateway
(https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/)."""

import base64
import json
from typing import Any

import httpcore

from shimd.apps.slight.backend import Opener, fail, failing
from shimd.apps.slight.keyvalue import PATIENCE
from shimd.apps.slight.slightfile import Capability, Slightfile
from shimd.component.results import Abandoned
from shimd.wasi.trust import Trust
from shimd.wit.guest import current

#: Seconds that etcd is asked to wait for a lock, before it is looked whether anybody still waits for the guest.
_LOOK = 5


class DistributedLocking:
    """Provides ``distributed-locking`` to guests."""

    def __init__(self, slightfile: Slightfile, trust: Trust) -> None:
        self._servers = Opener(
            slightfile, "distributed_locking", {"etcd": lambda capability, _name: Etcd(capability, trust)}
        )

    def distributed_locking_open(self, name: str) -> "Etcd":
        server: Etcd = self._servers.open(name)
        return server


_CASES = {
    httpcore.NetworkError: "connection-error",
    httpcore.ConnectTimeout: "connection-error",
    httpcore.TimeoutException: "lock-timeout-error",
    httpcore.ProtocolError: "protocol-error",
    httpcore.UnsupportedProtocol: "protocol-error",
    ValueError: "protocol-error",
}


class Etcd:
    def __init__(self, capability: Capability, trust: Trust) -> None:
        endpoint = capability.configs["ETCD_ENDPOINT"].rstrip("/")
        self._url = endpoint if "://" in endpoint else f"http://{endpoint}"
        self._pool = httpcore.ConnectionPool(ssl_context=trust.context, max_connections=None, keepalive_expiry=60)

    def lock(self, name: bytes) -> bytes:
        """Wait until the lock is ours; its time to live is etcd's default, 60 s.

        :returns: the key that unlocks it
        """
        return self._lock(name, 0)

    def lock_with_time_to_live(self, name: bytes, seconds: int) -> bytes:
        granted = self._ask("lease/grant", {"TTL": seconds}, "lock-acquire-error")
        return self._lock(name, int(granted["ID"]))

    def unlock(self, key: bytes) -> None:
        self._ask("lock/unlock", {"key": _encoded(key)}, "lock-release-error")

    def _lock(self, name: bytes, lease: int) -> bytes:
        guest = current()
        while not guest.abandoned:
            answer = self._ask("lock/lock", {"name": _encoded(name), "lease": lease}, "lock-acquire-error", waits=True)
            if answer is not None:
                return base64.b64decode(answer["key"])
        raise Abandoned

    def _ask(self, method: str, message: dict[str, Any], case: str, *, waits: bool = False) -> Any:
        """:returns: the answer; ``None``: it waits for too long"""
        with failing(_CASES):
            timeouts = {"connect": PATIENCE, "read": _LOOK if waits else PATIENCE, "write": PATIENCE}
            try:
                response = self._pool.request(
                    "POST",
                    f"{self._url}/v3/{method}",
                    content=json.dumps(message).encode(),
                    extensions={"timeout": timeouts},
                )
            except httpcore.ReadTimeout:
                if waits:
                    return None
                raise
            answer = json.loads(response.content)
            if response.status != 200:
                fail(case, answer.get("message") or f"etcd at {self._url} answers {response.status}")
            return answer


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
