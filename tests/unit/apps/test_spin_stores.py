"""Key-value stores and databases, on real SQLite files."""

import threading
from pathlib import Path

import pytest

from shimd.apps.spin import keyvalue
from shimd.apps.spin.backends import File
from shimd.apps.spin.database import Database
from shimd.apps.spin.keyvalue import Atomics, Batch, Cas, KeyValueStores, OpenStore, SqliteStore, Store
from shimd.apps.spin.services import Services
from shimd.apps.spin.sqlite import Databases, SqliteConnection
from shimd.apps.spin.sqlite import opener as database_opener
from shimd.component.results import Case, Err
from shimd.wasi.trust import BuiltIn, Trust


def connected(database: File) -> SqliteConnection:
    where = database_opener(database, Services(Trust(BuiltIn(), {})))
    return Databases({"default": where}, ["default"]).open("default")


def opener(path: Path) -> OpenStore:
    database = Database(path, keyvalue.TABLE)
    return lambda label: SqliteStore(database, label)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return KeyValueStores({"default": opener(tmp_path / "sub/kv.db")}, ["default"]).open("default")


def test_values_come_back(store: Store) -> None:
    store.set("key", b"\0\xff")
    assert (store.get("key"), store.exists("key"), store.get_keys()) == (b"\0\xff", True, ["key"])
    store.set("key", b"")
    assert store.get("key") == b""
    store.delete("key")
    store.delete("key")
    assert (store.get("key"), store.exists("key"), store.list_keys(None)) == (None, False, {"keys": [], "cursor": None})


def test_stores_of_one_file_are_apart(tmp_path: Path) -> None:
    database = opener(tmp_path / "kv.db")
    stores = KeyValueStores({"a": database, "b": database}, ["a", "b"])
    stores.open("a").set("key", b"a")
    assert stores.open("b").get("key") is None


@pytest.mark.parametrize(("label", "error"), [("ungranted", "access-denied"), ("unknown", "no-such-store")])
def test_stores_that_may_not_be_opened(tmp_path: Path, label: str, error: str) -> None:
    stores = KeyValueStores({"ungranted": opener(tmp_path / "kv.db")}, ["unknown"])
    with pytest.raises(Err) as caught:
        stores.open(label)
    assert caught.value.value == Case(error)


def test_increments_are_not_lost(store: Store) -> None:
    threads = [threading.Thread(target=lambda: [store.increment("n", 1) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("n") == b"200"
    assert Atomics().increment(store, "n", -300) == -100


def test_compare_and_swap(store: Store) -> None:
    first, second = Cas.new(store, "key"), Cas.new(store, "key")
    Atomics().swap(first, b"one")
    with pytest.raises(Err) as caught:
        Atomics().swap(second, b"two")
    assert caught.value.value.tag == "cas-failed"
    fresh = caught.value.value.payload
    assert fresh.current() == b"one"
    Atomics().swap(fresh, b"two")
    assert store.get("key") == b"two"


def test_many_at_once(store: Store) -> None:
    batch = Batch()
    batch.set_many(store, [("a", b"1"), ("b", b"2")])
    batch.delete_many(store, ["b"])
    assert batch.get_many(store, ["a", "b"]) == [("a", b"1"), ("b", None)]


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "kv.db").write_bytes(b"not a database" * 100)
    store = KeyValueStores({"default": opener(tmp_path / "kv.db")}, ["default"]).open("default")
    with pytest.raises(Err) as caught:
        store.get("key")
    assert caught.value.value.tag == "other"
    assert "kv.db" in caught.value.value.payload


def test_every_kind_of_value(tmp_path: Path) -> None:
    connection = connected(File(tmp_path / "sql.db"))
    values = [Case("integer", 1 << 40), Case("real", 0.5), Case("text", "ü"), Case("blob", b"\0"), Case("null")]
    result = connection.execute("SELECT ?, ?, ?, ?, ?", values)
    assert result["rows"] == [{"values": values}]
    connection.execute("CREATE TABLE t (x)", [])
    connection.execute("INSERT INTO t VALUES (1), (2)", [])
    assert (connection.changes(), connection.last_insert_rowid()) == (2, 2)


def test_what_a_connection_has_inserted_and_changed(tmp_path: Path) -> None:
    """It stays what it was while others insert, and while it reads; an UPDATE inserts nothing."""
    database = File(tmp_path / "sql.db")
    own, other = connected(database), connected(database)
    own.execute("CREATE TABLE t (x)", [])
    own.execute("INSERT INTO t VALUES (1), (2), (3)", [])
    other.execute("REPLACE INTO t VALUES (4)", [])
    own.execute("SELECT 1", [])
    assert (own.last_insert_rowid(), own.changes()) == (3, 3)
    own.execute(" update t SET x = 1 WHERE x < 3", [])
    assert (own.last_insert_rowid(), own.changes()) == (3, 2)
    assert (other.last_insert_rowid(), other.changes()) == (4, 1)
    assert own.execute("INSERT INTO t VALUES (5) RETURNING x", [])["rows"] == [{"values": [Case("integer", 5)]}]
    assert (own.last_insert_rowid(), own.changes()) == (5, 1)


def test_no_other_file_is_attached(tmp_path: Path) -> None:
    """It may be another component's; temporary ones may be, and VACUUM makes one."""
    Database(tmp_path / "other.db").execute("CREATE TABLE secrets (x)")
    connection = connected(File(tmp_path / "sql.db"))
    for statement in (f"ATTACH '{tmp_path}/other.db' AS o", f"VACUUM INTO '{tmp_path}/copy.db'"):
        with pytest.raises(Err) as caught:
            connection.execute(statement, [])
        assert caught.value.value.payload in ("not authorized", "authorization denied"), statement
    for statement in ("ATTACH ':memory:' AS m", "ATTACH '' AS t", "VACUUM"):
        connection.execute(statement, [])


def test_files_are_attached_where_that_is_configured(tmp_path: Path) -> None:
    Database(tmp_path / "other.db").execute("CREATE TABLE secrets (x)")
    database = File(tmp_path / "sql.db", attaches=True)
    connection = connected(database)
    connection.execute(f"ATTACH '{tmp_path}/other.db' AS o", [])
    assert connection.execute("SELECT name FROM o.sqlite_master", [])["rows"] == [{"values": [Case("text", "secrets")]}]
