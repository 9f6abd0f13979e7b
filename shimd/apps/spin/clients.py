"""Clients of the servers that applications use, made by libraries that only such applications load."""

import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from shimd.apps.spin.limits import ConnectionLimits
from shimd.apps.spin.networking import Networking
from shimd.wasi.trust import Trust, add

#: By the protocol: the library, and what it would load at first use.
_LIBRARIES = {
    "redis": ("redis.asyncio",),
    "mqtt": ("aiomqtt",),
    "postgres": ("asyncpg",),
    "mysql": ("pymysql",),
}
#: What they raise, besides OSError, where nobody answers.
_UNREACHABLE = (("redis.exceptions", "ConnectionError", "TimeoutError"), ("aiomqtt", "MqttError"))
#: Seconds in which a server must take a connection.
CONNECT = 10

T = TypeVar("T")


class Clients:
    """Makes clients. Made itself before the container is entered: libraries are out of sight then.

    :param networking: what guests' clients, which take addresses from :meth:`reach`, are held to
    """

    def __init__(self, kinds: Collection[str], trust: Trust, networking: Networking | None = None) -> None:
        for module in (module for kind in kinds for module in _LIBRARIES[kind]):
            import_module(module)
        self._trust = trust
        self.networking = networking or Networking()
        self.limits = ConnectionLimits(self.networking)

    async def reach(self, host: str, port: int, connect: Callable[[str], Awaitable[T]]) -> T:
        """Have a server connected to at the first of its addresses that can be reached, and is not blocked.

        :raises OSError: there is none; or whatever ``connect`` raises at the last of them
        """
        addresses = await self.networking.destinations.addresses(host, port)
        for address in addresses[:-1]:
            try:
                return await connect(address)
            except _unreachable():
                continue
        return await connect(addresses[-1])

    def redis(self, address: str, *, at: str = "") -> Any:
        """Make a client of a redis URL (``redis``, ``rediss``); it connects at its first command.

        A URL's query would be settings of the library, another host among them: it is left out.

        :param at: for a guest, which sees errors itself: one connection to this address, and no second try
        :raises ValueError: it is no such URL
        """
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        parts = urlsplit(address)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError("it is not redis://HOST[:PORT]")

        more: dict[str, Any] = {"single_connection_client": True, "retry": Retry(NoBackoff(), 0)} if at else {}
        plain = parts._replace(query="", fragment="").geturl()
        client = Redis.from_url(plain, protocol=2, socket_timeout=None, socket_connect_timeout=CONNECT, **more)
        if at:
            client.connection_pool.connection_kwargs["host"] = at
        if parts.scheme == "rediss":
            client.connection_pool.connection_class = _secure_redis(parts.hostname, self._trust.context)
        return client

    def mqtt(self, address: "MqttAddress", at: str = "") -> AbstractAsyncContextManager[Any]:
        """Returns a connection that is made on entering. Called in the event loop.

        :param at: the address to connect to, rather than look for the host
        """
        from aiomqtt import Client

        named = at and at != address.host
        return Client(
            at or address.host,
            address.port,
            username=address.username or None,
            password=address.password or None,
            keepalive=address.keep_alive,
            timeout=CONNECT,
            tls_context=self._context(address.host, named=bool(named)) if address.tls else None,
        )

    async def postgres(
        self,
        *,
        host: str,
        at: str,
        port: int,
        user: str,
        password: str | None,
        database: str | None,
        tls: str,
        authority: str | None = None,
    ) -> Any:
        """Connect to a PostgreSQL server.

        :param at: the host's address
        :param tls: ``sslmode``
        :param authority: a certificate that is trusted besides, PEM
        """
        import asyncpg

        context: str | ssl.SSLContext = tls
        if authority is not None and tls != "disable":
            context = self._trust.named(host)
            add(context, authority)
        elif tls not in ("disable", "allow", "prefer"):
            context = self._context(host, named=at != host)
        return await asyncpg.connect(
            host=at,
            port=port,
            user=user,
            password=password,
            database=database,
            ssl=context,
            timeout=CONNECT,
            statement_cache_size=0,  # a connection lives as long as one instance
        )

    def mysql(
        self, *, host: str, at: str, port: int, user: str, password: str, database: str | None, tls: bool | None
    ) -> Any:
        """Connect to a MySQL server; each statement is committed at once. Blocks, as do the connection's methods.

        :param at: the host's address
        :param tls: ``None``: where the server has it, whoever that is
        """
        connection = _mysql_connection()(
            host=host,
            port=port,
            user=user,
            password=password,
            database=database,
            ssl=self._trust.context if tls else None,
            ssl_disabled=tls is False,
            connect_timeout=CONNECT,
            autocommit=True,
            charset="utf8mb4",
            defer_connect=True,
        )
        stream = socket.create_connection((at, port), CONNECT)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.connect(stream)
        return connection

    def _context(self, host: str, *, named: bool) -> ssl.SSLContext:
        """:param named: whether it is the address that the library is told, and not the host"""
        return self._trust.named(host) if named else self._trust.context


def _secure_redis(host: str, context: ssl.SSLContext) -> type[Any]:
    """Make a class of connections for a server whose certificate has to be that of ``host``.

    The library's own would trust whomever OpenSSL does, besides.
    """
    from redis.asyncio.connection import SSLConnection

    class Secure(SSLConnection):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.ssl_context.context = context

        def _connection_arguments(self) -> dict[str, Any]:
            return {**super()._connection_arguments(), "server_hostname": host}

    return Secure


def _mysql_connection() -> type[Any]:
    """Make a class of connections that fail without looking for the library's source: it has the traceback of what is
    wrong with TLS formatted."""
    from pymysql import OperationalError
    from pymysql.connections import Connection
    from pymysql.constants import CR

    class Plain(Connection):  # type: ignore[misc]
        def _request_authentication(self) -> None:
            try:
                super()._request_authentication()
            except OSError as error:
                raise OperationalError(CR.CR_SSL_CONNECTION_ERROR, str(error)) from None

    return Plain


def _unreachable() -> tuple[type[Exception], ...]:
    """Errors where nobody answers: also those of the libraries that are loaded."""
    found: list[type[Exception]] = [OSError]
    for module, *names in _UNREACHABLE:
        if module in sys.modules:
            found += [getattr(sys.modules[module], name) for name in names]
    return tuple(found)


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
