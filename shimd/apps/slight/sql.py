"""``sql``: PostgreSQL."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shimd.apps.slight.backend import Opener, failing
from shimd.apps.slight.keyvalue import PATIENCE
from shimd.apps.slight.slightfile import Capability, Slightfile
from shimd.component.results import Case

if TYPE_CHECKING:
    import psycopg

#: What a question mark is no parameter in: texts, quoted names.
_PARAMETER = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|\?""")


@dataclass(frozen=True)
class Statement:
    query: str
    params: list[str]


class Sql:
    """Provides ``sql`` to guests."""

    def __init__(self, slightfile: Slightfile) -> None:
        self._databases = Opener(slightfile, "sql", {"postgres": lambda capability, _name: PostgresBackend(capability)})

    def sql_open(self, name: str) -> "PostgresBackend":
        database: PostgresBackend = self._databases.open(name)
        return database

    def statement_prepare(self, query: str, params: list[str]) -> Statement:
        return Statement(numbered(query), params)


def numbered(query: str) -> str:
    """Number a statement's parameters, as PostgreSQL has them: ``?`` becomes ``$1``, ``$2``, …"""
    numbers = iter(range(1, len(query) + 1))
    return _PARAMETER.sub(lambda match: f"${next(numbers)}" if match[0] == "?" else match[0], query)


class PostgresBackend:
    """A connection, made when it is first needed and again when it was lost; one statement at a time."""

    def __init__(self, capability: Capability) -> None:
        from psycopg import errors

        self._url = capability.configs["POSTGRES_CONNECTION_URL"]
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._lock = threading.Lock()
        self._errors = {
            errors.InsufficientPrivilege: "access-violation",
            errors.InvalidAuthorizationSpecification: "access-violation",
            errors.IntegrityError: "constraint-violation",
            errors.ProgrammingError: "syntax-error",
        }

    def query(self, statement: Statement) -> list[dict[str, Any]]:
        """Run a statement; returns a value for each column of each row, as the interface's record ``row``."""
        rows: list[dict[str, Any]] = self._executed(statement, _rows)
        return rows

    def exec(self, statement: Statement) -> None:
        self._executed(statement, lambda _cursor: None)

    def _executed(self, statement: Statement, read: Callable[[Any], Any]) -> Any:
        import psycopg

        with self._lock, failing(self._errors), psycopg.RawCursor(self._connected()) as cursor:
            cursor.execute(statement.query, statement.params)
            return read(cursor)

    def _connected(self) -> "psycopg.Connection[tuple[Any, ...]]":
        import psycopg

        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._url, autocommit=True, connect_timeout=PATIENCE, client_encoding="utf8"
            )
        return self._connection


def _rows(cursor: Any) -> list[dict[str, Any]]:
    """Convert a result, from the text that the server writes: Python has neither infinite dates nor most of its
    types."""
    result = cursor.pgresult
    columns = [
        (result.fname(index).decode(), _KINDS.get(result.ftype(index), _text("str"))) for index in range(result.nfields)
    ]
    return [
        {"field-name": name, "value": Case("null") if value is None else kind(value)}
        for row in range(result.ntuples)
        for index, (name, kind) in enumerate(columns)
        for value in (result.get_value(row, index),)
    ]


def _case(tag: str, convert: Callable[[bytes], Any]) -> Callable[[bytes], Case]:
    return lambda value: Case(tag, convert(value))


def _text(tag: str) -> Callable[[bytes], Case]:
    return _case(tag, bytes.decode)


#: By the type's number (``pg_type.oid``), which never changes for PostgreSQL's own.
_KINDS = {
    16: _case("boolean", lambda value: value == b"t"),
    17: _case("binary", lambda value: bytes.fromhex(value.decode()[2:])),  # \\x00ff
    20: _case("int64", int),
    21: _case("int32", int),
    23: _case("int32", int),
    26: _case("uint32", int),
    700: _case("float", float),
    701: _case("double", float),
    1082: _text("date"),
    1083: _text("time"),
    1114: _text("timestamp"),
    1184: _text("timestamp"),
}
