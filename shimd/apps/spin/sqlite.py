"""SQLite databases for components: ``fermyon:spin/sqlite@2.0.0`` and ``spin:sqlite/sqlite@3.0.0``."""

import sqlite3
from collections.abc import Collection, Mapping

from shimd.apps.spin.database import Database
from shimd.component.results import Case, Err


class SqliteConnection:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._last_row = 0
        self._changes = 0

    def execute(self, statement: str, parameters: list[Case]) -> dict[str, object]:
        try:
            result = self._database.execute(statement, tuple(case.payload for case in parameters))
        except sqlite3.Error as error:
            full = isinstance(error, sqlite3.OperationalError) and "full" in str(error)
            raise Err(Case("database-full") if full else Case("io", str(error))) from None
        except OSError as error:
            raise Err(Case("io", f"{self._database.path}: {error.strerror}")) from None
        self._last_row, self._changes = result.last_row, max(0, result.changes)
        return {
            "columns": result.columns,
            "rows": [{"values": [_value(value) for value in row]} for row in result.rows],
        }

    def last_insert_rowid(self) -> int:
        return self._last_row

    def changes(self) -> int:
        return self._changes


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

    def __init__(self, databases: Mapping[str, Database], granted: Collection[str]) -> None:
        self._databases = databases
        self._granted = granted
        self.Connection = self

    def open(self, name: str) -> SqliteConnection:
        if name not in self._granted:
            raise Err(Case("access-denied"))
        if name not in self._databases:
            raise Err(Case("no-such-database"))
        return SqliteConnection(self._databases[name])
