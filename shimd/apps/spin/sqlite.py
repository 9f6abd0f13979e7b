"""SQLite databases for components: ``fermyon:spin/sqlite@2.0.0`` and ``spin:sqlite/sqlite@3.0.0``.

A database is a file, or somewhere else, by libSQL's protocol.
"""

import sqlite3
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from shimd.apps.spin.backends import File, Libsql, ServiceError
from shimd.apps.spin.database import Database, QueryResult
from shimd.apps.spin.libsql import LibsqlConnection
from shimd.apps.spin.services import Services
from shimd.component.results import Case, Err


class Statements(Protocol):
    """What runs the statements of one connection."""

    def execute(self, statement: str, parameters: list[Case]) -> QueryResult:
        """:raises Err: an ``error``"""
        ...

    def close(self) -> None: ...


OpenDatabase = Callable[[], Statements]


def opener(where: File | Libsql, services: Services) -> OpenDatabase:
    """Returns a function that opens a connection to a database."""
    if isinstance(where, File):
        database = Database(where.path, attaches=where.attaches)
        return lambda: _InFile(database)
    return lambda: _Elsewhere(LibsqlConnection(services, where))


class _InFile:
    def __init__(self, database: Database) -> None:
        self._database = database

    def execute(self, statement: str, parameters: list[Case]) -> QueryResult:
        try:
            return self._database.execute(statement, tuple(case.payload for case in parameters))
        except sqlite3.Error as error:
            full = isinstance(error, sqlite3.OperationalError) and "full" in str(error)
            raise Err(Case("database-full") if full else Case("io", str(error))) from None
        except OSError as error:
            raise Err(Case("io", f"{self._database.path}: {error.strerror}")) from None

    def close(self) -> None:
        """The file is for all connections."""


class _Elsewhere:
    def __init__(self, connection: LibsqlConnection) -> None:
        self._connection = connection
        self.close = connection.close

    def execute(self, statement: str, parameters: list[Case]) -> QueryResult:
        try:
            return self._connection.execute(statement, parameters)
        except ServiceError as error:
            raise Err(Case("io", str(error))) from None


class SqliteConnection:
    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._last_row = 0
        self._changes = 0

    def execute(self, statement: str, parameters: list[Case]) -> dict[str, object]:
        result = self._statements.execute(statement, parameters)
        if result.last_row is not None:
            self._last_row = result.last_row
        if result.changes >= 0:
            self._changes = result.changes
        return {
            "columns": result.columns,
            "rows": [{"values": [_value(value) for value in row]} for row in result.rows],
        }

    def last_insert_rowid(self) -> int:
        return self._last_row

    def changes(self) -> int:
        return self._changes

    def close(self) -> None:
        self._statements.close()


def _value(value: object) -> Case:
    match value:
        case None:
            return Case("null")
        case int():
            return Case("integer", value)
        case float():
            return Case("real", value)
        case str():
            return Case("text", value)
        case _:
            return Case("blob", value)


class Databases:
    """The databases that one component may open."""

    def __init__(self, databases: Mapping[str, OpenDatabase], granted: Collection[str]) -> None:
        self._databases = databases
        self._granted = granted
        self.Connection = self

    def open(self, name: str) -> SqliteConnection:
        if name not in self._granted:
            raise Err(Case("access-denied"))
        if name not in self._databases:
            raise Err(Case("no-such-database"))
        return SqliteConnection(self._databases[name]())
