"""PostgreSQL for components: ``fermyon:spin/postgres@2.0.0``, ``spin:postgres/postgres@3.0.0`` and ``@4.0.0``.

Parameters are of the types that the statement has, as in Spin: nothing is converted on the way.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from anyio import from_thread

from shimd.apps.spin.allowed import AllowedHosts
from shimd.apps.spin.clients import Clients, postgres_errors
from shimd.apps.spin.limits import ConnectionLimit
from shimd.apps.spin.outbound.pgtypes import InterfaceVersion, encode_interval, lower, parameter
from shimd.component.results import Case, Err
from shimd.wasi.waiting import wait_for


class Postgres:
    """The interface, of one version; ``PostgresConnection`` has its static function."""

    def __init__(self, clients: Clients, allowed: AllowedHosts, version: InterfaceVersion) -> None:
        self._clients, self._allowed, self._version = clients, allowed, version
        self.Connection = self

    def open(self, address: str) -> "PostgresConnection":
        try:
            server = PostgresServer.parse(address)
        except ValueError as error:
            raise Err(Case("connection-failed", str(error))) from None
        if not any(self._allowed.allows(scheme, server.host, server.port) for scheme in ("postgres", "postgresql")):
            raise Err(Case("connection-failed", f"address postgres://{server.host}:{server.port} is not permitted"))
        limit = self._clients.limits.of("postgres")
        try:
            with limit.opening():
                return PostgresConnection(wait_for(self._connect, server), self._version, limit)
        except postgres_errors() as error:
            raise Err(Case("connection-failed", str(error) or type(error).__name__)) from None

    async def _connect(self, server: "PostgresServer") -> Any:
        connect = partial(
            self._clients.postgres,
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            database=server.database,
            tls=server.tls,
        )
        return await self._clients.reach(server.host, server.port, lambda at: connect(at=at))


@dataclass(frozen=True)
class PostgresServer:
    host: str
    port: int
    user: str
    password: str | None
    database: str | None
    tls: str
    """``sslmode``."""

    @classmethod
    def parse(cls, address: str) -> "PostgresServer":
        """Parse a URL, or ``host=… user=…`` as libpq takes it.

        :raises ValueError: it is neither, or names no server
        """
        found = _of_url(address) if "://" in address else _of_pairs(address)
        if not found.get("host") or found["host"].startswith("/"):
            raise ValueError("the address names no host")
        return cls(
            host=found["host"],
            port=int(found.get("port") or 5432),
            user=found.get("user") or "postgres",
            password=found.get("password"),
            database=found.get("dbname") or None,
            tls=found.get("sslmode") or "prefer",
        )


def _of_url(address: str) -> Mapping[str, str]:
    parts = urlsplit(address)
    if parts.scheme not in ("postgres", "postgresql"):
        raise ValueError("the address is not postgres://USER:PASSWORD@HOST:PORT/DATABASE")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    plain = {
        "host": parts.hostname,
        "port": str(parts.port or ""),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password) if parts.password is not None else None,
        "dbname": unquote(parts.path.lstrip("/")),
    }
    return query | {name: value for name, value in plain.items() if value is not None}


def _of_pairs(address: str) -> Mapping[str, str]:
    words = [word.partition("=") for word in shlex.split(address)]
    if not all(equals for _name, equals, _value in words):
        raise ValueError("the address is neither a URL nor NAME=VALUE pairs")
    return {name: value for name, _equals, value in words}


class PostgresConnection:
    def __init__(self, connection: Any, version: InterfaceVersion, limit: ConnectionLimit) -> None:
        self._connection = connection
        self._version = version
        self._limit = limit

    def close(self) -> None:
        try:
            from_thread.run_sync(self._connection.terminate)
        finally:
            self._limit.closed()

    def query(self, statement: str, parameters: list[Case]) -> dict[str, object]:
        try:
            columns, rows = wait_for(self._fetch, statement, self._parameters(parameters))
        except postgres_errors() as error:
            raise self._failed(error) from None
        kinds = [kind for _name, kind in columns]
        return {
            "columns": [{"name": name, "data-type": self._version.column(kind)} for name, kind in columns],
            "rows": [
                [self._version.value(kind, value) for kind, value in zip(kinds, row, strict=True)] for row in rows
            ],
        }

    def execute(self, statement: str, parameters: list[Case]) -> int:
        """Returns how many rows it changed."""
        try:
            _columns, status = wait_for(self._execute, statement, self._parameters(parameters))
        except postgres_errors() as error:
            raise self._failed(error) from None
        last = str(status).rpartition(" ")[2]
        return int(last) if last.isdigit() else 0

    def _parameters(self, parameters: list[Case]) -> list[Any]:
        try:
            return [parameter(case) for case in parameters]
        except (ValueError, OverflowError, ArithmeticError) as error:
            raise Err(Case("bad-parameter", str(error))) from None

    async def _prepared(self, statement: str) -> tuple[Any, list[tuple[str, str]]]:
        prepared = await self._connection.prepare(statement)
        kinds = {kind.name for kind in prepared.get_parameters()}
        columns = [(column.name, column.type.name) for column in prepared.get_attributes()]
        if "interval" in {*kinds, *(kind for _name, kind in columns)}:  # the library's own has no months
            await self._connection.set_type_codec(
                "interval", encoder=encode_interval, decoder=lower, schema="pg_catalog", format="tuple"
            )
            prepared = await self._connection.prepare(statement)
        return prepared, columns

    async def _fetch(self, statement: str, parameters: list[Any]) -> tuple[list[tuple[str, str]], Sequence[Any]]:
        prepared, columns = await self._prepared(statement)
        return columns, await prepared.fetch(*parameters)

    async def _execute(self, statement: str, parameters: list[Any]) -> tuple[object, str]:
        prepared, columns = await self._prepared(statement)
        await prepared.fetch(*parameters)
        return columns, prepared.get_statusmsg()

    def _failed(self, error: Exception) -> Err:
        from asyncpg import DataError, InterfaceError, PostgresError

        if isinstance(error, InterfaceError) or (isinstance(error, DataError) and error.severity is None):
            return Err(Case("bad-parameter", str(error)))  # the library's own finding
        if isinstance(error, PostgresError):
            return Err(Case("query-failed", self._version.query_error(error)))
        return Err(Case("other", str(error) or type(error).__name__))
