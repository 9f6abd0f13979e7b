"""MySQL and MariaDB for components: ``fermyon:spin/mysql@2.0.0``, by PyMySQL, which blocks a thread of its own."""

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from anyio import to_thread

from shimd.apps.calls import UNLIMITED
from shimd.apps.spin.allowed import PORTS, AllowedHosts
from shimd.apps.spin.clients import Clients, mysql_errors
from shimd.apps.spin.limits import ConnectionLimit
from shimd.component.results import Case, Err
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
    """The interface; ``MysqlConnection`` has its static function."""

    def __init__(self, clients: Clients, allowed: AllowedHosts) -> None:
        self._clients, self._allowed = clients, allowed
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
        mode = query.get("ssl-mode") or query.get("sslmode") or query.get("ssl_mode") or "disabled"
        connect = partial(
            self._clients.mysql,
            host=host,
            port=port,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=unquote(parts.path.lstrip("/")) or None,
            tls=mode.lower() != "disabled",
        )
        limit = self._clients.limits.of("mysql")
        try:
            with limit.opening():
                return MysqlConnection(wait_for(self._clients.reach, host, port, _blocking(connect)), limit)
        except mysql_errors() as error:
            raise Err(Case("connection-failed", _text(error))) from None


def _blocking(connect: Callable[..., Any]) -> Callable[[str], Awaitable[Any]]:
    """Make a function that connects to an address on another thread."""

    async def connected(address: str) -> Any:
        return await to_thread.run_sync(partial(connect, at=address), abandon_on_cancel=True, limiter=UNLIMITED)

    return connected


def _apart(function: Callable[[], T]) -> T:
    """Run what blocks on another thread, so that the guest's can be given up."""
    return wait_for(partial(to_thread.run_sync, function, abandon_on_cancel=True, limiter=UNLIMITED))


class MysqlConnection:
    def __init__(self, connection: Any, limit: ConnectionLimit) -> None:
        self._connection, self._limit = connection, limit

    def close(self) -> None:
        try:
            with suppress(*mysql_errors()):  # it was lost before
                self._connection.close()
        finally:
            self._limit.closed()

    def query(self, statement: str, parameters: list[Case]) -> dict[str, object]:
        fields, rows = self._run(statement, parameters)
        kinds = [_kind(field) for field in fields]
        return {
            "columns": [{"name": field.name, "data-type": kind} for field, kind in zip(fields, kinds, strict=True)],
            "rows": [[_value(kind, value) for kind, value in zip(kinds, row, strict=True)] for row in rows],
        }

    def execute(self, statement: str, parameters: list[Case]) -> None:
        self._run(statement, parameters)

    def _run(self, statement: str, parameters: list[Case]) -> tuple[Sequence[Any], Sequence[Sequence[Any]]]:
        """:raises Err: ``query-failed``"""
        values = [None if case.tag == "db-null" else case.payload for case in parameters]
        marked, count = _marked(statement)
        if count != len(values):
            raise Err(Case("bad-parameter", f"the statement has {count} parameters, and {len(values)} were given"))
        try:
            return _apart(partial(self._execute, marked if values else statement, values))
        except mysql_errors() as error:
            raise Err(Case("query-failed", _text(error))) from None

    def _execute(self, statement: str, values: list[Any]) -> tuple[Sequence[Any], Sequence[Sequence[Any]]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            if cursor.description is None:
                return [], []
            return cursor._result.fields, cursor.fetchall()  # the description has no flags


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
