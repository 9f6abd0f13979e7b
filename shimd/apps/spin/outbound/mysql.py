"""MySQL and MariaDB for components: ``fermyon:spin/mysql@2.0.0`` and ``spin:mysql/mysql@3.0.0``.

They are by PyMySQL, which blocks a thread of its own.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import anyio
from anyio import to_thread

from shimd.apps.calls import UNLIMITED
from shimd.apps.spin.allowed import PORTS, AllowedHosts
from shimd.apps.spin.clients import Clients, mysql_errors
from shimd.apps.spin.limits import ConnectionLimit
from shimd.apps.spin.outbound.rows import AHEAD, Rows, Turns, size, too_much
from shimd.component.results import Case, Err
from shimd.component.streams import Future, Stream
from shimd.wasi.waiting import wait_for

#: ``FIELD_TYPE`` of the protocol: the type of a column, without a sign and with.
_NUMBERS = {1: "int8", 2: "int16", 3: "int32", 8: "int64", 9: "int32"}
_FLOATS = {4: "floating32", 5: "floating64"}
_TEXTS = frozenset({249, 250, 251, 252, 253, 254})
"""Blobs and strings: binary if their character set is."""
_BINARY_CHARSET, _UNSIGNED = 63, 32
#: Where a question mark stands for no parameter; a parameter; what means something to ``%``.
_TOKENS = re.compile(
    r"""'(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `[^`]*` | \#[^\n]* | --\s[^\n]* | /\*.*?\*/ | \? | %""",
    re.VERBOSE | re.DOTALL,
)

T = TypeVar("T")


class Mysql:
    """The interface; this has its connection's static function, too."""

    def __init__(self, clients: Clients, allowed: AllowedHosts, *, streams: bool = False) -> None:
        """:param streams: whether the rows of a query are read bit by bit, from version 3 on"""
        self._clients, self._allowed = clients, allowed
        self._made = StreamingConnection if streams else MysqlConnection
        self.Connection = self

    def open(self, address: str) -> "MysqlConnection":
        try:
            parts = urlsplit(address)
            host, port = parts.hostname or "", parts.port or PORTS["mysql"]
        except ValueError as error:
            raise Err(Case("connection-failed", str(error))) from None
        if parts.scheme != "mysql" or not host:
            raise Err(Case("connection-failed", "the address is not mysql://USER:PASSWORD@HOST:PORT/DATABASE"))
        if not self._allowed.allows("mysql", host, port):
            raise Err(Case("connection-failed", f"address mysql://{host}:{port} is not permitted"))
        query = {name.lower(): values[-1] for name, values in parse_qs(parts.query).items()}
        mode = query.get("ssl-mode") or query.get("sslmode") or query.get("ssl_mode")
        connect = partial(
            self._clients.mysql,
            host=host,
            port=port,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=unquote(parts.path.lstrip("/")) or None,
            tls=mode.lower() != "disabled" if mode else None,
        )
        limit = self._clients.limits.of("mysql")
        try:
            with limit.opening():
                return self._made(wait_for(self._clients.reach, host, port, _blocking(connect)), limit)
        except mysql_errors() as error:
            raise Err(Case("connection-failed", _text(error))) from None


def _blocking(connect: Callable[..., Any]) -> Callable[[str], Awaitable[Any]]:
    """Make a function that connects to an address on another thread."""

    async def connected(address: str) -> Any:
        return await to_thread.run_sync(partial(connect, at=address), abandon_on_cancel=True, limiter=UNLIMITED)

    return connected


class MysqlConnection:
    def __init__(self, connection: Any, limit: ConnectionLimit) -> None:
        self._connection, self._limit = connection, limit
        self._turns = Turns(self._end)
        self._is_lost = False

    def close(self) -> None:
        self._turns.drop()

    def _end(self) -> None:
        try:
            with suppress(*mysql_errors()):  # it was lost before
                self._connection.close()
        finally:
            self._limit.closed()

    def query(self, statement: str, parameters: list[Case]) -> Any:
        found = self._run(self._all, statement, parameters)
        if reason := too_much(found[1]):
            raise Err(Case("query-failed", reason))
        return {"columns": _columns(found[0]), "rows": _rows(*found)}

    def execute(self, statement: str, parameters: list[Case]) -> None:
        self._run(self._all, statement, parameters)

    def _run(self, work: Callable[..., T], statement: str, parameters: list[Case], *, keeps: bool = False) -> T:
        """Have a statement carried out.

        :param keeps: whether the connection's turn lasts

        :raises Err: it failed
        """
        values = [None if case.tag == "db-null" else case.payload for case in parameters]
        marked, count = _marked(statement)
        if count != len(values):
            raise Err(Case("bad-parameter", f"the statement has {count} parameters, and {len(values)} were given"))
        work = partial(work, marked if values else statement, values or None)
        return self._failing(partial(self._turns.take, partial(self._apart, work), keeps=keeps))

    def _failing(self, work: Callable[[], Awaitable[T]]) -> T:
        """:raises Err: ``query-failed``"""
        try:
            return wait_for(work)
        except mysql_errors() as error:
            raise Err(Case("query-failed", _text(error))) from None

    async def _apart(self, work: Callable[[], T]) -> T:
        """Have something done that blocks, on another thread, so that the guest's can be given up. Nothing can be asked
        then, since an answer is on its way that nobody takes."""
        if self._is_lost:
            raise Err(Case("query-failed", "the connection has ended with a statement that was given up"))
        try:
            return await to_thread.run_sync(work, abandon_on_cancel=True, limiter=UNLIMITED)
        except anyio.get_cancelled_exc_class():
            self._is_lost = True
            raise

    def _all(self, statement: str, values: list[Any] | None) -> tuple[Sequence[Any], Sequence[Sequence[Any]]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)
            if cursor.description is None:
                return [], []
            return cursor._result.fields, cursor.fetchall()  # the description has no flags


class StreamingConnection(MysqlConnection):
    """One whose rows are read bit by bit."""

    def query(self, statement: str, parameters: list[Case]) -> tuple[list[dict[str, str]], Stream, Future]:
        fields, cursor = self._run(self._begin, statement, parameters, keeps=True)
        next_rows = partial(self._apart, partial(_next, fields, cursor))
        rows = Rows(partial(self._failing, next_rows), partial(self._leave, cursor))
        return _columns(fields), *rows.given

    def _begin(self, statement: str, values: list[Any] | None) -> tuple[Sequence[Any], Any]:
        import pymysql

        cursor = self._connection.cursor(pymysql.cursors.SSCursor)
        cursor.execute(statement, values)
        return (cursor._result.fields if cursor.description else []), cursor

    def _leave(self, cursor: Any) -> None:
        """Read what is left, as the protocol wants it; unless nobody has the connection any more."""
        try:
            if self._turns.is_dropped or self._is_lost:
                cursor._result.unbuffered_active, cursor.connection = False, None
            with suppress(*mysql_errors()):
                cursor.close()
        finally:
            self._turns.leave()


def _next(fields: Sequence[Any], cursor: Any) -> list[list[Case]]:
    """Returns further rows, of :data:`AHEAD` bytes or a few more; none: there are no more.

    :raises Err: a row is too large
    """
    rows, bytes_ = [], 0
    while bytes_ < AHEAD and (row := cursor.fetchone()) is not None:
        if reason := too_much(row):
            raise Err(Case("query-failed", reason))
        rows.append(row)
        bytes_ += size(row)
    return _rows(fields, rows)


def _columns(fields: Sequence[Any]) -> list[dict[str, str]]:
    return [{"name": field.name, "data-type": _kind(field)} for field in fields]


def _rows(fields: Sequence[Any], rows: Sequence[Sequence[Any]]) -> list[list[Case]]:
    kinds = [_kind(field) for field in fields]
    return [[_value(kind, value) for kind, value in zip(kinds, row, strict=True)] for row in rows]


def _marked(statement: str) -> tuple[str, int]:
    """Returns the statement with ``%s`` for each ``?``, as the library wants it, and their number."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        if match[0] == "?":
            count += 1
            return "%s"
        return match[0].replace("%", "%%")

    return _TOKENS.sub(replace, statement), count


def _kind(field: Any) -> str:
    """``db-data-type``."""
    if number := _NUMBERS.get(field.type_code):
        return f"u{number}" if field.flags & _UNSIGNED else number
    if field.type_code in _TEXTS:
        return "binary" if field.charsetnr == _BINARY_CHARSET else "str"
    return _FLOATS.get(field.type_code, "other")


def _value(kind: str, value: Any) -> Case:
    """``db-value``."""
    if value is None:
        return Case("db-null")
    if kind == "other":
        return Case("unsupported")
    if kind == "str" and isinstance(value, bytes):
        return Case(kind, value.decode(errors="replace"))
    return Case(kind, value.encode() if kind == "binary" and isinstance(value, str) else value)


def _text(error: Exception) -> str:
    """Returns an error's text: the library's are pairs of a number and a text."""
    return str(error.args[-1]) if error.args else type(error).__name__
