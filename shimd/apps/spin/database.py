"""SQLite, for guests and for key-value stores: files, opened once per process, shared by all requests."""

import re
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

#: Statements that change rows, and insert none: the last row inserted is told after these, too, whoever did so.
_OTHER = re.compile(r"(?:\s|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*(?:update|delete)\b", re.IGNORECASE)


@dataclass(frozen=True)
class QueryResult:
    columns: list[str]
    rows: list[tuple[object, ...]]
    changes: int
    """-1: the statement is none that changes rows."""
    last_row: int | None
    """``None``: it has inserted none."""


class Database:
    """One file; used from many threads, by one at a time."""

    def __init__(self, path: Path, setup: str = "", *, attaches: bool = False) -> None:
        """:param attaches: whether statements may attach other files, which may be another component's"""
        self.path = path
        self._setup, self.attaches = setup, attaches
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def execute(self, statement: str, parameters: tuple[object, ...] = ()) -> "QueryResult":
        """Run one statement, and keep what it changes.

        :raises sqlite3.Error: it is wrong, or the file is
        :raises OSError: the directory cannot be made
        """
        with self._lock:
            cursor = self._open().execute(statement, parameters)
            columns = [column[0] for column in cursor.description or ()]
            rows = cursor.fetchall()  # before it is known how many rows have changed
            inserted = cursor.rowcount > 0 and not _OTHER.match(statement)
            return QueryResult(columns, rows, cursor.rowcount, cursor.lastrowid if inserted else None)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)
            connection.execute("PRAGMA journal_mode = WAL")
            if self._setup:
                connection.execute(self._setup)
            if not self.attaches:
                connection.set_authorizer(_without_files)
            self._connection = connection
        return self._connection


def _without_files(action: int, name: str | None, *_more: object) -> int:
    """Allow all but attaching a file; an empty name is a temporary one."""
    attaches = action == sqlite3.SQLITE_ATTACH and name not in ("", ":memory:")
    return sqlite3.SQLITE_DENY if attaches else sqlite3.SQLITE_OK
