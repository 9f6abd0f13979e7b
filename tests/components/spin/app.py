"""A Spin component of many paths, by spin-sdk: each shows one thing that Spin gives. Runs as a component."""

import json
import os

from spin_sdk import http, key_value, variables
from spin_sdk import redis as redis_client
from spin_sdk.http import Request, Response
from spin_sdk.wit.imports import atomics, wasi_config_store, wasi_keyvalue_store
from spin_sdk.wit.imports.spin_sqlite_sqlite import Connection, Value_Integer, Value_Text
from spin_sdk.wit.types import Err


class IncomingHandler(http.IncomingHandler):
    def handle_request(self, request: Request) -> Response:
        name, *arguments = request.headers["spin-path-info"].strip("/").split("/")
        try:
            answer = globals()[name.replace("-", "_") or "about"](request, *arguments)
        except Err as error:
            return _response(500, type(error.value).__name__)
        return _response(200, answer)


def _response(status: int, answer: object) -> Response:
    return Response(status, {"content-type": "application/json"}, json.dumps(answer).encode())


def about(request):
    headers = {name: value for name, value in request.headers.items() if name.startswith("spin-")}
    return {"uri": request.uri, "method": request.method, "headers": headers, "environ": dict(os.environ)}


def counter(_request, store="default"):
    """One more each time."""
    with key_value.open(store) as opened:
        count = int(opened.get("count") or b"0") + 1
        opened.set("count", str(count).encode())
        return count


def keys(_request, store="default"):
    with key_value.open(store) as opened:
        opened.set("a", b"1")
        opened.set("b", b"2")
        opened.delete("b")
        return {"keys": opened.get_keys(), "exists": [opened.exists("a"), opened.exists("b")], "b": opened.get("b")}


def increment(_request):
    bucket = wasi_keyvalue_store.open("default")
    return atomics.increment(bucket, "atomic", 5)


def variable(_request, name):
    return variables.get(name)


def config(_request):
    return dict(wasi_config_store.get_all())


def people(_request, name):
    with Connection.open("default") as database:
        database.execute("CREATE TABLE IF NOT EXISTS people (id INTEGER PRIMARY KEY, name TEXT)", [])
        database.execute("INSERT INTO people (name) VALUES (?)", [Value_Text(name)])
        result = database.execute("SELECT id, name FROM people WHERE id >= ? ORDER BY id", [Value_Integer(1)])
        return {"columns": result.columns, "rows": [[value.value for value in row.values] for row in result.rows]}


def bad_sql(_request):
    with Connection.open("default") as database:
        return database.execute("SELEKT", [])


def fetch(_request, *parts):
    answer = http.send(Request("GET", "http://" + "/".join(parts), {}, None))
    return [answer.status, answer.body.decode()]


def listing(_request, *parts):
    return sorted(os.listdir("/" + "/".join(parts)))


def read(_request, *parts):
    try:
        with open("/" + "/".join(parts)) as file:
            return file.read()
    except OSError as error:
        return error.strerror


def write(_request):
    try:
        with open("/assets/new", "w") as file:
            file.write("x")
    except OSError as error:
        return error.strerror


def redis(_request):
    with redis_client.open("redis://localhost") as connection:
        return connection.get("x")
