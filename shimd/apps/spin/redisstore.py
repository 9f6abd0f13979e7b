"""Key-value stores in redis: keys and values as they are (Spin's ``crates/key-value-redis``)."""

from collections.abc import Awaitable, Callable
from typing import Any

from shimd.apps.spin.clients import Clients, redis_errors, shown
from shimd.component.results import Case, Err
from shimd.engine import InvalidSetting
from shimd.wasi.waiting import wait_for

#: Set a value unless it has changed, in one step.
_SWAP = """
local now = redis.call("GET", KEYS[1])
if now ~= ARGV[1] then return 0 end
redis.call("SET", KEYS[1], ARGV[2])
return 1
"""


class RedisStore:
    """A :class:`shimd.apps.spin.keyvalue.Store`; its connections are shared by all guests."""

    def __init__(self, clients: Clients, address: str) -> None:
        """:raises InvalidSetting: it is no URL of redis"""
        try:
            self._client: Any = clients.redis(address)
        except ValueError as error:
            raise InvalidSetting(f"runtime-config.toml: a key_value_store's url is wrong: {error}") from None
        self._shown = shown(address)

    def _ask(self, command: Callable[..., Awaitable[Any]], *arguments: Any, **more: Any) -> Any:
        try:
            return wait_for(lambda: command(*arguments, **more))
        except redis_errors() as error:
            raise Err(Case("other", f"{self._shown}: {error}")) from None

    def get(self, key: str) -> bytes | None:
        value: bytes | None = self._ask(self._client.get, key)
        return value

    def set(self, key: str, value: bytes) -> None:
        self._ask(self._client.set, key, value)

    def delete(self, key: str) -> None:
        self._ask(self._client.delete, key)

    def exists(self, key: str) -> bool:
        return bool(self._ask(self._client.exists, key))

    def get_keys(self) -> list[str]:
        keys: list[str] = self._ask(self._scan)
        return keys

    async def _scan(self) -> list[str]:
        """List the keys by SCAN, which may give one twice; ``KEYS`` would stop the server for as long as it takes."""
        return sorted({key.decode(errors="replace") async for key in self._client.scan_iter(count=1000)})

    def list_keys(self, _cursor: str | None) -> dict[str, object]:
        return {"keys": self.get_keys(), "cursor": None}

    def increment(self, key: str, delta: int) -> int:
        return int(self._ask(self._client.incrby, key, delta))

    def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
        if old is None:
            return bool(self._ask(self._client.set, key, new, nx=True))
        return bool(self._ask(self._client.eval, _SWAP, 1, key, old, new))
