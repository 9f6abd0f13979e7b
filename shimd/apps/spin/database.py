"""SQLite, for guests and for key-value stores: files, opened once per process, shared by all requests."""

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class QueryResult:
    columns: list[str]
    rows: list[tuple[object, ...]]
    changes: int
    """-1 for a statement that changes nothing."""
    last_row: int


class Database:
    """One file; used from many threads, by one at a time."""

    def __init__(self, path: Path, setup: str = "") -> None:
        self.path = path
        self._setup = setup
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
            return QueryResult(columns, cursor.fetchall(), cursor.rowcount, cursor.lastrowid or 0)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)
            connection.execute("PRAGMA journal_mode = WAL")
            if self._setup:
                connection.execute(self._setup)
            self._connection = connection
        return self._connection
