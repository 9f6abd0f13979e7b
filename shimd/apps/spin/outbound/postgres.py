"""PostgreSQL for components: ``fermyon:spin/postgres@2.0.0``, and ``spin:postgres/postgres@3.0.0`` to ``@4.2.0``.

Parameters are of the types that the statement has, as in Spin: nothing is converted on the way.
"""

import shlex
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import anyio
from anyio import from_thread

from shimd.apps.spin.allowed import AllowedHosts
from shimd.apps.spin.clients import Clients, postgres_errors
from shimd.apps.spin.limits import ConnectionLimit
from shimd.apps.spin.outbound.pgtypes import InterfaceVersion, encode_interval, lower, parameter
from shimd.apps.spin.outbound.rows import AHEAD, MOST, Rows, Turns, size, too_much
from shimd.component.results import Case, Err
from shimd.component.streams import Future, Stream
from shimd.wasi.waiting import wait_for

Columns = list[tuple[str, str]]
"""Names, and PostgreSQL's own of their types."""
#: Rows that are asked for first, and at most.
_FIRST_ROWS, _MOST_ROWS = 16, 1024

T = TypeVar("T")


@dataclass
class Result:
    """One whose rows are read bit by bit."""

    columns: Columns
    cursor: Any = None
    """``None``: there are no rows."""
    transaction: Any = None
    """Its own; ``None``: it is in one of the guest's."""
    count: int = _FIRST_ROWS
    """Rows that are asked for next."""


class Postgres:
    """The interface, of one version; this has its connection's static functions, too."""

    def __init__(self, clients: Clients, allowed: AllowedHosts, version: InterfaceVersion) -> None:
        self._clients, self._allowed, self._version = clients, allowed, version
        self.Connection = self

    def ConnectionBuilder(self, address: str) -> "ConnectionBuilder":
        return ConnectionBuilder(self, address)

    def open(self, address: str, authority: str | None = None) -> "PostgresConnection":
        """:param authority: the certificate that is trusted for it, PEM; ``None``: those of the container"""
        try:
            server = PostgresServer.parse(address)
        except ValueError as error:
            raise Err(Case("connection-failed", str(error))) from None
        if not any(self._allowed.allows(scheme, server.host, server.port) for scheme in ("postgres", "postgresql")):
            raise Err(Case("connection-failed", f"address postgres://{server.host}:{server.port} is not permitted"))
        limit = self._clients.limits.of("postgres")
        try:
            with limit.opening():
                return PostgresConnection(wait_for(self._connect, server, authority), self._version, limit)
        except postgres_errors() as error:
            raise Err(Case("connection-failed", str(error) or type(error).__name__)) from None

    open_async = open

    async def _connect(self, server: "PostgresServer", authority: str | None) -> Any:
        connect = partial(
            self._clients.postgres,
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            database=server.database,
            tls=server.tls,
            authority=authority,
        )
        return await self._clients.reach(server.host, server.port, lambda at: connect(at=at))


class ConnectionBuilder:
    """``connection-builder``, from version 4.1 on."""

    def __init__(self, interface: Postgres, address: str) -> None:
        self._interface, self._address = interface, address
        self._authority: str | None = None

    def set_ca_root(self, certificate: str) -> None:
        try:
            ssl.create_default_context(cadata=certificate)
        except (ssl.SSLError, ValueError) as error:
            raise Err(Case("other", f"the certificate is none: {error}")) from None
        self._authority = certificate

    def build(self) -> "PostgresConnection":
        return self._interface.open(self._address, self._authority)

    build_async = build


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
        self._turns = Turns(self._end)

    def close(self) -> None:
        self._turns.drop()

    def _end(self) -> None:
        try:
            from_thread.run_sync(self._connection.terminate)
        finally:
            self._limit.closed()

    def query(self, statement: str, parameters: list[Case]) -> dict[str, object]:
        columns, rows = self._ask(partial(self._fetch, statement, self._parameters(parameters)))
        if reason := too_much([list(row) for row in rows]):
            raise self._too_large(reason)
        return {"columns": self._columns(columns), "rows": self._rows(columns, rows)}

    def query_async(self, statement: str, parameters: list[Case]) -> tuple[list[dict[str, object]], Stream, Future]:
        result = self._ask(partial(self._begin, statement, self._parameters(parameters)), keeps=True)
        rows = Rows(partial(self._next, result), partial(self._leave, result))
        return self._columns(result.columns), *rows.given

    def execute(self, statement: str, parameters: list[Case]) -> int:
        """Returns how many rows it changed."""
        _columns, status = self._ask(partial(self._execute, statement, self._parameters(parameters)))
        last = str(status).rpartition(" ")[2]
        return int(last) if last.isdigit() else 0

    execute_async = execute

    def _ask(self, work: Callable[[], Awaitable[T]], *, keeps: bool = False) -> T:
        """Have something done in a turn of the connection.

        :raises Err: it failed
        """
        return self._failing(partial(self._turns.take, work, keeps=keeps))

    def _failing(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return wait_for(work)
        except postgres_errors() as error:
            raise self._failed(error) from None

    def _columns(self, columns: Columns) -> list[dict[str, object]]:
        return [{"name": name, "data-type": self._version.column(kind)} for name, kind in columns]

    def _rows(self, columns: Columns, rows: Sequence[Any]) -> list[list[Case]]:
        kinds = [kind for _name, kind in columns]
        return [[self._version.value(kind, value) for kind, value in zip(kinds, row, strict=True)] for row in rows]

    def _parameters(self, parameters: list[Case]) -> list[Any]:
        try:
            return [parameter(case) for case in parameters]
        except (ValueError, OverflowError, ArithmeticError) as error:
            raise Err(Case("bad-parameter", str(error))) from None

    async def _prepared(self, statement: str) -> tuple[Any, Columns]:
        prepared = await self._connection.prepare(statement)
        kinds = {kind.name for kind in prepared.get_parameters()}
        columns = [(column.name, column.type.name) for column in prepared.get_attributes()]
        if "interval" in {*kinds, *(kind for _name, kind in columns)}:  # the library's own has no months
            await self._connection.set_type_codec(
                "interval", encoder=encode_interval, decoder=lower, schema="pg_catalog", format="tuple"
            )
            prepared = await self._connection.prepare(statement)
        return prepared, columns

    async def _fetch(self, statement: str, parameters: list[Any]) -> tuple[Columns, Sequence[Any]]:
        prepared, columns = await self._prepared(statement)
        return columns, await prepared.fetch(*parameters)

    async def _execute(self, statement: str, parameters: list[Any]) -> tuple[object, str]:
        prepared, columns = await self._prepared(statement)
        await prepared.fetch(*parameters)
        return columns, prepared.get_statusmsg()

    async def _begin(self, statement: str, parameters: list[Any]) -> Result:
        """Have rows be read bit by bit, which takes a transaction; what has none is done then."""
        prepared, columns = await self._prepared(statement)
        if not columns:
            await prepared.fetch(*parameters)
            return Result(columns)
        transaction = None if self._connection.is_in_transaction() else self._connection.transaction()
        if transaction is not None:
            await transaction.start()
        try:
            return Result(columns, await prepared.cursor(*parameters), transaction)
        except BaseException:
            if transaction is not None:
                with anyio.CancelScope(shield=True), suppress(*postgres_errors()):
                    await transaction.rollback()
            raise

    def _next(self, result: Result) -> list[list[Case]]:
        if result.cursor is None:
            return []
        rows = self._failing(partial(result.cursor.fetch, result.count))
        bytes_ = [size(list(row)) for row in rows]
        if any(one > MOST for one in bytes_):
            raise self._too_large(f"a row has {max(bytes_)} bytes, and {MOST} can be told at a time")
        result.count = max(1, min(_MOST_ROWS, result.count * AHEAD // max(1, sum(bytes_))))
        return self._rows(result.columns, rows)

    def _leave(self, result: Result) -> None:
        try:
            if result.transaction is not None and not self._turns.is_dropped:
                from_thread.run(result.transaction.commit)  # one that has failed is rolled back by that
        except postgres_errors() as error:
            raise self._failed(error) from None
        finally:
            self._turns.leave()

    def _too_large(self, reason: str) -> Err:
        return Err(Case("query-failed", Case("text", reason) if self._version.tells_more else reason))

    def _failed(self, error: Exception) -> Err:
        from asyncpg import DataError, InterfaceError, PostgresError

        if isinstance(error, InterfaceError) or (isinstance(error, DataError) and error.severity is None):
            return Err(Case("bad-parameter", str(error)))  # the library's own finding
        if isinstance(error, PostgresError):
            return Err(Case("query-failed", self._version.query_error(error)))
        return Err(Case("other", str(error) or type(error).__name__))
