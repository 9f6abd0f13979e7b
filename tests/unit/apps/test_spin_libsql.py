"""Databases elsewhere, by libSQL's protocol: a small server of it on SQLite, with what Turso's own server has not.

That is connections that the server holds (a *baton* each), another address for them, tokens, and counts of rows.
"""

import base64
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio
import pytest
from anyio import to_thread

from shimd.apps.spin.backends import Libsql
from shimd.apps.spin.services import Services
from shimd.apps.spin.sqlite import Databases, SqliteConnection, opener
from shimd.component.guest import Guest, current
from shimd.component.results import Case, Err
from shimd.wasi.trust import BuiltIn, Trust

T = TypeVar("T")


class Server:
    """Holds each connection until it is told to close it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.held: dict[str, sqlite3.Connection] = {}
        self.paths: list[str] = []
        self._given = 0
        self.base_url: str | None = None
        self.answer: bytes | None = None
        """Something else, for everybody."""

    def pipeline(self, question: Any) -> dict[str, object]:
        baton = question["baton"]
        connection = self.held.pop(baton) if baton else self._connect()
        results = []
        for request in question["requests"]:
            results.append(self._result(connection, request))
            if request["type"] == "close":
                connection.close()
                return {"baton": None, "base_url": None, "results": results}
        self._given += 1
        self.held[str(self._given)] = connection
        return {"baton": str(self._given), "base_url": self.base_url, "results": results}

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)

    def _result(self, connection: sqlite3.Connection, request: Any) -> dict[str, object]:
        if request["type"] == "close":
            return {"type": "ok", "response": {"type": "close"}}
        try:
            cursor = connection.execute(request["stmt"]["sql"], [_python(value) for value in request["stmt"]["args"]])
        except sqlite3.Error as error:
            return {"type": "error", "error": {"message": f"SQLite error: {error}", "code": "SQLITE_ERROR"}}
        rows = [[_json(value) for value in row] for row in cursor]
        result = {
            "cols": [{"name": name} for name, *_rest in cursor.description or ()],
            "rows": rows,
            "affected_row_count": max(0, cursor.rowcount),
            "last_insert_rowid": str(cursor.lastrowid) if cursor.rowcount > 0 else None,
        }
        return {"type": "ok", "response": {"type": "execute", "result": result}}


def _python(value: Any) -> object:
    match value["type"]:
        case "integer":
            assert isinstance(value["value"], str)
            return int(value["value"])
        case "blob":
            return base64.b64decode(value["base64"])
        case "null":
            return None
    plain: object = value["value"]
    return plain


def _json(value: object) -> dict[str, object]:
    match value:
        case None:
            return {"type": "null"}
        case int():
            return {"type": "integer", "value": str(value)}
        case float():
            return {"type": "float", "value": value}
        case bytes():
            return {"type": "blob", "base64": base64.b64encode(value).decode().rstrip("=")}
    return {"type": "text", "value": value}


@contextmanager
def serving(server: Server) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.paths.append(self.path)
            status, body = 200, server.answer
            if self.headers["authorization"] != "Bearer t0ken":
                status, body = 401, b'{"error":"unauthorized"}\n'
            if body is None:
                body = json.dumps(server.pipeline(question)).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.server_port}"
        finally:
            listener.shutdown()
            thread.join()


class _Guest:
    """As much of a guest as waiting needs."""

    lease, waiting, abandoned = None, None, False


def by_a_guest(url: str, work: Callable[[Databases], T], token: str = "t0ken") -> T:
    """Have something done as guests do it: on a thread of its own."""

    async def run() -> T:
        async with Services(Trust(BuiltIn(), {})) as services:
            databases = Databases({"it": opener(Libsql(url, token), services)}, ["it"])

            def inside() -> T:
                with current.entered(cast(Guest, _Guest())):
                    return work(databases)

            return await to_thread.run_sync(inside)

    return anyio.run(run)


def rows(connection: SqliteConnection, statement: str, *parameters: Case) -> object:
    return connection.execute(statement, list(parameters))["rows"]


def test_a_transaction(tmp_path: Path) -> None:
    """What one connection has not committed, another does not see; what is dropped is rolled back by the server."""
    server = Server(tmp_path / "data.db")

    def work(databases: Databases) -> None:
        first, second = databases.open("it"), databases.open("it")
        rows(first, "CREATE TABLE t (x)")
        rows(first, "BEGIN")
        rows(first, "INSERT INTO t VALUES (?)", Case("integer", 7))
        assert rows(second, "SELECT x FROM t") == []
        assert rows(first, "SELECT x FROM t") == [{"values": [Case("integer", 7)]}]
        rows(first, "COMMIT")
        assert rows(second, "SELECT x FROM t") == [{"values": [Case("integer", 7)]}]
        assert (first.last_insert_rowid(), second.last_insert_rowid()) == (1, 0)
        rows(second, "INSERT INTO t VALUES (8), (9)")
        assert (second.last_insert_rowid(), second.changes()) == (3, 2)
        rows(first, "BEGIN")
        rows(first, "DELETE FROM t")
        assert len(server.held) == 2
        first.close()
        second.close()
        while server.held:  # nobody waits for that but this test
            time.sleep(0.01)
        assert rows(databases.open("it"), "SELECT count(*) FROM t") == [{"values": [Case("integer", 3)]}]
        databases.open("it").close()

    with serving(server) as url:
        by_a_guest(url, work)
    assert set(server.paths) == {"/v2/pipeline"}


def test_values(tmp_path: Path) -> None:
    values = [Case("integer", 1 << 62), Case("real", 0.5), Case("text", "ü"), Case("blob", b"\0"), Case("null")]
    server = Server(tmp_path / "data.db")
    with serving(server) as url:
        found = by_a_guest(url, lambda databases: rows(databases.open("it"), "SELECT ?, ?, ?, ?, ?", *values))
    assert found == [{"values": values}]


def test_the_server_that_holds_a_connection(tmp_path: Path) -> None:
    """It may be another than that which was asked first."""
    server = Server(tmp_path / "data.db")

    def work(databases: Databases) -> None:
        connection = databases.open("it")
        for _ in range(2):
            rows(connection, "SELECT 1")

    with serving(server) as url:
        server.base_url = f"{url}/other"
        by_a_guest(f"{url}/first/", work)
    assert server.paths == ["/first/v2/pipeline", "/other/v2/pipeline"]


def reason(url: str, statement: str = "SELECT 1", token: str = "t0ken", *parameters: Case) -> str:
    def work(databases: Databases) -> str:
        with pytest.raises(Err) as caught:
            rows(databases.open("it"), statement, *parameters)
        assert caught.value.value.tag == "io"
        return str(caught.value.value.payload)

    return by_a_guest(url, work, token)


def test_what_is_wrong(tmp_path: Path) -> None:
    server = Server(tmp_path / "data.db")
    with serving(server) as url:
        assert reason(url, "SELEKT") == 'SQLite error: near "SELEKT": syntax error'
        assert reason(url, token="wrong") == f'{url} answers 401: {{"error":"unauthorized"}}'
        assert reason(url, "SELECT ?", "t0ken", Case("real", float("nan"))).startswith("a parameter is infinite, or no")
    assert reason(url).startswith(f"{url}: ")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{}",
        b'{"baton": null, "results": []}',
        b'{"baton": null, "results": [{"type": "ok", "response": {"type": "close"}}]}',
        b'{"baton": null, "results": [{"type": "ok", "response": {"result": {"cols": [], "rows": [[{"type": "x"}]], '
        b'"affected_row_count": 0}}}]}',
        b'{"baton": null, "results": [{"type": "ok", "response": {"result": {"cols": [], "rows": [[{"type": "blob", '
        b'"base64": "?"}]], "affected_row_count": 0}}}]}',
    ],
)
def test_answers_that_are_none(tmp_path: Path, answer: bytes) -> None:
    server = Server(tmp_path / "data.db")
    server.answer = answer
    with serving(server) as url:
        assert reason(url).startswith(f"{url} does not answer as libSQL does: ")
