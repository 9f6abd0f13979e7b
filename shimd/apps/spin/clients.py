"""Clients of the servers that applications use, made by libraries that only such applications load."""

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol
from urllib.parse import urlsplit

from shimd.wasi.trust import Trust

#: By the protocol: the library, and what it would load at first use.
_LIBRARIES = {
    "redis": ("redis.asyncio",),
    "mqtt": ("aiomqtt",),
    "postgres": ("asyncpg",),
    "mysql": ("pymysql",),
}
KINDS = frozenset(_LIBRARIES)
#: Seconds in which a server must take a connection.
CONNECT = 10


class Clients:
    """Makes clients. Made itself before the container is entered: libraries are out of sight then."""

    def __init__(self, kinds: Collection[str], trust: Trust) -> None:
        for module in (module for kind in kinds for module in _LIBRARIES[kind]):
            import_module(module)
        self._trust = trust

    def redis(self, address: str, *, single: bool = False) -> Any:
        """Make a client of a redis URL (``redis``, ``rediss``); it connects at its first command.

        A URL's query would be settings of the library, another host among them: it is left out.

        :param single: one connection, and no second try: for a guest, which sees the error itself
        :raises ValueError: it is no such URL
        """
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        parts = urlsplit(address)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError("it is not redis://HOST[:PORT]")

        more: dict[str, Any] = {"single_connection_client": True, "retry": Retry(NoBackoff(), 0)} if single else {}
        if address.startswith("rediss:"):
            more["ssl_ca_data"] = self._trust.pem
        plain = parts._replace(query="", fragment="").geturl()
        return Redis.from_url(plain, protocol=2, socket_timeout=None, socket_connect_timeout=CONNECT, **more)

    def mqtt(self, address: "MqttAddress") -> AbstractAsyncContextManager[Any]:
        """Returns a connection that is made on entering. Called in the event loop."""
        from aiomqtt import Client

        return Client(
            address.host,
            address.port,
            username=address.username or None,
            password=address.password or None,
            keepalive=address.keep_alive,
            timeout=CONNECT,
            tls_context=self._trust.context if address.tls else None,
        )

    async def postgres(
        self, *, host: str, port: int, user: str, password: str | None, database: str | None, tls: str
    ) -> Any:
        """Connect to a PostgreSQL server.

        :param tls: ``sslmode``
        """
        import asyncpg

        return await asyncpg.connect(
            host=host,
            port=port,
            user=user,
            password=password,
            database=database,
            ssl=tls if tls in ("disable", "allow", "prefer") else self._trust.context,
            timeout=CONNECT,
            statement_cache_size=0,  # a connection lives as long as one instance
        )

    def mysql(self, *, host: str, port: int, user: str, password: str, database: str | None, tls: bool) -> Any:
        """Connect to a MySQL server; each statement is committed at once. Blocks, as do the connection's methods."""
        import pymysql

        return pymysql.connect(
            host=host,
            port=port,
            user=user,
            password=password,
            database=database,
            ssl=self._trust.context if tls else None,
            connect_timeout=CONNECT,
            autocommit=True,
            charset="utf8mb4",
        )


def redis_errors() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisError

    return (RedisError, OSError)


def postgres_errors() -> tuple[type[Exception], ...]:
    from asyncpg import InterfaceError, PostgresError

    return (PostgresError, InterfaceError, OSError)


def mysql_errors() -> tuple[type[Exception], ...]:
    from pymysql import MySQLError

    return (MySQLError, OSError)


def mqtt_errors() -> tuple[type[Exception], ...]:
    from aiomqtt import MqttError

    return (MqttError, OSError)


def shown(address: str) -> str:
    """Returns an address without its user and password, for messages."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class MqttMessage(Protocol):
    topic: Any
    payload: bytes


@dataclass(frozen=True)
class MqttAddress:
    """The address of an MQTT server, as its URL says, and the login."""

    host: str
    port: int
    tls: bool
    username: str = ""
    password: str = ""
    keep_alive: int = 30
    """Seconds."""

    @classmethod
    def parse(cls, url: str, username: str = "", password: str = "", keep_alive: int = 30) -> "MqttAddress":
        """:raises ValueError: it is no URL of MQTT"""
        parts = urlsplit(url)
        tls = parts.scheme in ("mqtts", "ssl")
        if not (tls or parts.scheme in ("mqtt", "tcp")) or not parts.hostname:
            raise ValueError(f'"{url}" is not mqtt://HOST[:PORT]')
        return cls(parts.hostname, parts.port or (8883 if tls else 1883), tls, username, password, keep_alive)

    @property
    def shown(self) -> str:
        return f"mqtt{'s' if self.tls else ''}://{self.host}:{self.port}"
