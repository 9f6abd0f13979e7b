"""Key-value stores (https://spinframework.dev/kv-store-api-guide): SQLite files or redis, shared by all requests."""

import sqlite3
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from shimd.apps.spin.backends import File
from shimd.apps.spin.clients import Clients
from shimd.apps.spin.database import Database
from shimd.apps.spin.redisstore import RedisStore
from shimd.component.results import Case, Err

TABLE = """CREATE TABLE IF NOT EXISTS spin_key_value (
    store TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (store, key)
)"""


class Store(Protocol):
    """One store; what both interfaces call their resource. All methods raise ``Err`` (``other``) if it fails."""

    def get(self, key: str) -> bytes | None: ...

    def set(self, key: str, value: bytes) -> None: ...

    def delete(self, key: str) -> None: ...

    def exists(self, key: str) -> bool: ...

    def get_keys(self) -> list[str]: ...

    def list_keys(self, _cursor: str | None) -> dict[str, object]: ...

    def increment(self, key: str, delta: int) -> int:
        """Add to a value that is a number in decimal digits, atomically; returns the sum."""
        ...

    def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
        """Set a value if it still is ``old``, atomically; returns whether it was set."""
        ...


OpenStore = Callable[[str], Store]
"""A function that opens a store, by the label under which a component knows it."""


def opener(where: File | str, clients: Clients) -> OpenStore:
    """Returns a function that opens a store in a SQLite file, or in a redis of some address.

    :raises InvalidSetting: that is no address
    """
    if isinstance(where, File):
        database = Database(where.path, TABLE)
        return lambda label: SqliteStore(database, label)
    store = RedisStore(clients, where)
    return lambda _label: store


class SqliteStore:
    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name

    def _execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(statement, (self._name, *parameters)).rows
        except (sqlite3.Error, OSError) as error:
            raise Err(Case("other", f"{self._database.path}: {error}")) from None

    def get(self, key: str) -> bytes | None:
        rows = self._execute("SELECT value FROM spin_key_value WHERE store = ? AND key = ?", key)
        return bytes(rows[0][0]) if rows else None

    def set(self, key: str, value: bytes) -> None:
        self._execute("INSERT OR REPLACE INTO spin_key_value (store, key, value) VALUES (?, ?, ?)", key, value)

    def delete(self, key: str) -> None:
        self._execute("DELETE FROM spin_key_value WHERE store = ? AND key = ?", key)

    def exists(self, key: str) -> bool:
        return bool(self._execute("SELECT 1 FROM spin_key_value WHERE store = ? AND key = ?", key))

    def get_keys(self) -> list[str]:
        return [row[0] for row in self._execute("SELECT key FROM spin_key_value WHERE store = ? ORDER BY key")]

    def list_keys(self, _cursor: str | None) -> dict[str, object]:
        """Returns all keys at once: there is never a next page."""
        return {"keys": self.get_keys(), "cursor": None}

    def increment(self, key: str, delta: int) -> int:
        rows = self._execute(
            "INSERT INTO spin_key_value (store, key, value) VALUES (?, ?, CAST(?3 AS BLOB)) ON CONFLICT (store, key) "
            "DO UPDATE SET value = CAST(CAST(CAST(value AS TEXT) AS INTEGER) + ?3 AS BLOB) "
            "RETURNING CAST(value AS TEXT)",
            key,
            delta,
        )
        return int(rows[0][0])

    def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
        if old is None:
            statement = (
                "INSERT INTO spin_key_value (store, key, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING 1"
            )
            return bool(self._execute(statement, key, new))
        statement = "UPDATE spin_key_value SET value = ?4 WHERE store = ?1 AND key = ?2 AND value = ?3 RETURNING 1"
        return bool(self._execute(statement, key, old, new))


class KeyValueStores:
    """The stores that one component may open, by ``fermyon:spin/key-value`` and by ``wasi:keyvalue/store``."""

    def __init__(self, stores: Mapping[str, OpenStore], granted: Collection[str]) -> None:
        self._stores = stores
        self._granted = granted
        self.Store = self

    def open(self, label: str) -> Store:
        if label not in self._granted:
            raise Err(Case("access-denied"))
        if label not in self._stores:
            raise Err(Case("no-such-store"))
        return self._stores[label](label)


class Cas:
    """``wasi:keyvalue/atomics.cas``: a value that is only set if nobody else has, meanwhile."""

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key
        self.value = store.get(key)

    @staticmethod
    def new(store: Store, key: str) -> "Cas":
        return Cas(store, key)

    def current(self) -> bytes | None:
        return self.value


class Atomics:
    """``wasi:keyvalue/atomics``."""

    def __init__(self) -> None:
        self.Cas = Cas

    def increment(self, store: Store, key: str, delta: int) -> int:
        return store.increment(key, delta)

    def swap(self, cas: Cas, value: bytes) -> None:
        try:
            swapped = cas.store.swap(cas.key, cas.value, value)
        except Err as error:
            raise Err(Case("store-error", error.value)) from None
        if not swapped:
            raise Err(Case("cas-failed", Cas(cas.store, cas.key)))


class Batch:
    """``wasi:keyvalue/batch``."""

    def get_many(self, store: Store, keys: list[str]) -> list[tuple[str, bytes | None]]:
        return [(key, store.get(key)) for key in keys]

    def set_many(self, store: Store, pairs: list[tuple[str, bytes]]) -> None:
        for key, value in pairs:
            store.set(key, value)

    def delete_many(self, store: Store, keys: list[str]) -> None:
        for key in keys:
            store.delete(key)
