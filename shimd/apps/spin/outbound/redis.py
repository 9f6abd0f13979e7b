"""``fermyon:spin/redis@2.0.0``, ``spin:redis/redis@3.0.0``: a connection for each opened, as transactions need it."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio
from anyio import from_thread

from shimd.apps.spin.allowed import PORTS, AllowedHosts
from shimd.apps.spin.clients import Clients, redis_errors
from shimd.apps.spin.limits import ConnectionLimit
from shimd.apps.spin.outbound.rows import too_much
from shimd.component.results import Case, Err
from shimd.wasi.destinations import Prohibited
from shimd.wasi.waiting import wait_for

#: Commands whose reply is a status, which the library gives as any text (https://redis.io/docs/latest/commands/).
_STATUS = frozenset(
    "AUTH BGREWRITEAOF BGSAVE DISCARD FLUSHALL FLUSHDB HMSET LSET LTRIM MSET MULTI PFMERGE PING PSETEX QUIT RENAME "
    "RESET RESTORE SAVE SELECT SET SETEX SWAPDB TYPE UNWATCH WATCH".split()
)
_QUEUED = b"QUEUED"


class Redis:
    """The interface; ``RedisConnection`` has its static function."""

    def __init__(self, clients: Clients, allowed: AllowedHosts) -> None:
        self._clients = clients
        self._allowed = allowed
        self.Connection = self

    def open(self, address: str) -> "RedisConnection":
        try:
            parts = urlsplit(address)
            host, port = unquote(parts.hostname or ""), parts.port or PORTS["redis"]
        except ValueError:
            raise Err(Case("invalid-address")) from None
        if not self._allowed.allows(parts.scheme, host, port):
            raise Err(Case("invalid-address"))
        limit, connect = self._clients.limits.of("redis"), partial(self._connect, address)
        try:
            with limit.opening():
                return RedisConnection(wait_for(self._clients.reach, host, port, connect), limit)
        except (ValueError, Prohibited):
            raise Err(Case("invalid-address")) from None
        except redis_errors() as error:
            raise Err(Case("other", str(error))) from None

    async def _connect(self, address: str, at: str) -> Any:
        """:raises ValueError: it is no URL of redis"""
        client = self._clients.redis(address, at=at)
        try:
            return await client.initialize()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await client.aclose()
            raise


class RedisConnection:
    def __init__(self, client: Any, limit: ConnectionLimit) -> None:
        self._client, self._limit = client, limit

    def close(self) -> None:
        try:
            with suppress(*redis_errors()):  # it was lost before
                from_thread.run(self._client.aclose)
        finally:
            self._limit.closed()

    def ask(self, command: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Await a command of the client.

        :raises Err: it failed
        """
        try:
            reply = wait_for(command, *arguments)
        except redis_errors() as error:
            wrong_type = "WRONGTYPE" in str(error) or "not an integer" in str(error)
            raise Err(Case("type-error") if wrong_type else Case("other", str(error))) from None
        if reason := too_much(reply):
            raise Err(Case("other", reason))
        return reply

    def publish(self, channel: str, payload: bytes) -> None:
        self.ask(self._client.publish, channel, payload)

    def get(self, key: str) -> bytes | None:
        value: bytes | None = self.ask(self._client.get, key)
        return value

    def set(self, key: str, value: bytes) -> None:
        self.ask(self._client.set, key, value)

    def incr(self, key: str) -> int:
        return int(self.ask(self._client.incr, key))

    def del_(self, keys: list[str]) -> int:
        return int(self.ask(self._client.delete, *keys)) if keys else 0

    def sadd(self, key: str, values: list[str]) -> int:
        return int(self.ask(self._client.sadd, key, *values))

    def smembers(self, key: str) -> list[str]:
        return sorted(value.decode(errors="replace") for value in self.ask(self._client.smembers, key))

    def srem(self, key: str, values: list[str]) -> int:
        return int(self.ask(self._client.srem, key, *values))

    def execute(self, command: str, arguments: list[Case]) -> list[Case]:
        """Run any command; returns the reply, lists within lists made flat, as Spin does."""
        self._client.response_callbacks.clear()  # of the library, which makes other things of some replies
        reply = self.ask(self._client.execute_command, command, *(argument.payload for argument in arguments))
        status = command.upper() in _STATUS and b"GET" not in (argument.payload for argument in arguments)
        return [_result(value, status) for value in _flat(reply)]


def _flat(reply: Any) -> list[Any]:
    return [value for part in reply for value in _flat(part)] if isinstance(reply, list) else [reply]


def _result(value: Any, status: bool) -> Case:
    match value:
        case None:
            return Case("nil")
        case int():
            return Case("int64", value)
        case bytes() if status or value == _QUEUED:
            return Case("status", value.decode(errors="replace"))
    return Case("binary", value)
