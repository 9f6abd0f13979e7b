"""A Spin component of many paths, by spin-sdk: each shows one thing that Spin gives. Runs as a component."""

import json
import os
import sys
from typing import Any
from urllib.parse import unquote

import wit_world
from spin_sdk import http, key_value, llm, mqtt, mysql, postgres, variables
from spin_sdk import redis as redis_client
from spin_sdk.http import Request, Response
from spin_sdk.wit import exports
from spin_sdk.wit.imports import atomics, rdbms_types, wasi_config_store, wasi_keyvalue_store
from spin_sdk.wit.imports import llm as wit_llm
from spin_sdk.wit.imports import spin_postgres_postgres_3_0_0 as postgres3
from spin_sdk.wit.imports import spin_postgres_postgres_4_0_0 as postgres4
from spin_sdk.wit.imports.mqtt import Qos
from spin_sdk.wit.imports.redis import RedisParameter_Binary, RedisParameter_Int64
from spin_sdk.wit.imports.spin_sqlite_sqlite import (
    Connection,
    Value_Blob,
    Value_Integer,
    Value_Null,
    Value_Real,
    Value_Text,
)
from spin_sdk.wit.types import Err


class IncomingHandler(http.IncomingHandler):
    def handle_request(self, request: Request) -> Response:
        name, *arguments = request.headers["spin-path-info"].strip("/").split("/")
        try:
            answer = globals()[name.replace("-", "_") or "about"](request, *arguments)
        except Err as error:
            return _response(500, type(error.value).__name__)
        return _response(200, answer)


class InboundRedis(exports.InboundRedis):
    def handle_message(self, message: bytes) -> None:
        """What comes is kept; ``trap`` and ``fail`` end otherwise."""
        _note("redis", message)
        if message == b"trap":
            os.abort()


class WitWorld(wit_world.WitWorld):
    def handle_cron_event(self, metadata: Any) -> None:
        _note("cron", str(metadata.timestamp).encode())
        print("cron", metadata.timestamp, flush=True)

    def handle_message(self, message: bytes, metadata: Any) -> None:
        _note("mqtt", f"{metadata.topic}: ".encode() + message)


def _note(kind: str, value: bytes) -> None:
    """Add to what has come by a trigger so far."""
    with key_value.open("default") as store:
        store.set(kind, (store.get(kind) or b"") + value + b"\n")


def _response(status: int, answer: object) -> Response:
    return Response(status, {"content-type": "application/json"}, json.dumps(answer).encode())


def about(request: Request) -> object:
    headers = {name: value for name, value in request.headers.items() if name.startswith("spin-")}
    return {"uri": request.uri, "method": request.method, "headers": headers, "environ": dict(os.environ)}


def counter(_request: Request, store: str = "default") -> object:
    """One more each time."""
    with key_value.open(store) as opened:
        count = int(opened.get("count") or b"0") + 1
        opened.set("count", str(count).encode())
        return count


def say(_request: Request, text: str) -> None:
    print(text, flush=True)
    print(text, file=sys.stderr, flush=True)


def keys(_request: Request, store: str = "default") -> object:
    with key_value.open(store) as opened:
        opened.set("a", b"1")
        opened.set("b", b"2")
        opened.delete("b")
        return {"keys": opened.get_keys(), "exists": [opened.exists("a"), opened.exists("b")], "b": opened.get("b")}


def increment(_request: Request) -> object:
    bucket = wasi_keyvalue_store.open("default")
    return atomics.increment(bucket, "atomic", 5)


def variable(_request: Request, name: str) -> object:
    return variables.get(name)


def config(_request: Request) -> object:
    return dict(wasi_config_store.get_all())


def people(_request: Request, name: str) -> object:
    with Connection.open("default") as database:
        database.execute("CREATE TABLE IF NOT EXISTS people (id INTEGER PRIMARY KEY, name TEXT)", [])
        database.execute("INSERT INTO people (name) VALUES (?)", [Value_Text(name)])
        result = database.execute("SELECT id, name FROM people WHERE id >= ? ORDER BY id", [Value_Integer(1)])
        return {"columns": result.columns, "rows": [[value.value for value in row.values] for row in result.rows]}


def bad_sql(_request: Request) -> object:
    with Connection.open("default") as database:
        return database.execute("SELEKT", [])


def fetch(_request: Request, *parts: str) -> object:
    answer = http.send(Request("GET", "http://" + "/".join(parts), {}, None))
    return [answer.status, answer.body.decode()]


def fetch_safely(_request: Request, *parts: str) -> object:
    """By TLS."""
    try:
        answer = http.send(Request("GET", "https://" + "/".join(parts), {}, None))
    except Exception as error:
        return [0, str(error)]
    return [answer.status, answer.body.decode()]


def grow(_request: Request, megabytes: str) -> object:
    """Memory that is given back."""
    try:
        return len(bytearray(int(megabytes) << 20)) >> 20
    except MemoryError:
        return "no memory"


def listing(_request: Request, *parts: str) -> object:
    return sorted(os.listdir("/" + "/".join(parts)))


def read(_request: Request, *parts: str) -> object:
    try:
        with open("/" + "/".join(parts)) as file:
            return file.read()
    except OSError as error:
        return error.strerror


def write(_request: Request, *parts: str) -> object:
    try:
        with open("/" + "/".join(parts), "w") as file:
            file.write("x")
    except OSError as error:
        return error.strerror
    return None


def noted(_request: Request, kind: str) -> object:
    with key_value.open("default") as store:
        return (store.get(kind) or b"").decode().splitlines()


def values(_request: Request, key: str) -> object:
    with key_value.open("default") as store:
        return (store.get(key) or b"").decode()


def swap(_request: Request) -> object:
    """Two at a time: the second comes too late."""
    bucket = wasi_keyvalue_store.open("default")
    first, second = atomics.Cas.new(bucket, "swapped"), atomics.Cas.new(bucket, "swapped")
    before = first.current()
    atomics.swap(first, b"first")
    try:
        atomics.swap(second, b"second")
    except Err as error:
        return [before and before.decode(), type(error.value).__name__]
    return None


def infer(_request: Request, model: str = "llama", prompt: str = "hello") -> object:
    """As the interface has it, where a guest says no parameters: the SDK always does."""
    found = wit_llm.infer(model, prompt, None)
    return [found.text, found.usage.prompt_token_count, found.usage.generated_token_count]


def infer_with_options(_request: Request, model: str, prompt: str) -> object:
    return llm.infer_with_options(model, prompt, llm.InferencingParams(7, 1.5, 5, 0.25, 3, 0.5)).text


def embeddings(_request: Request, model: str, *texts: str) -> object:
    found = llm.generate_embeddings(model, list(texts))
    return [found.embeddings, found.usage.prompt_token_count]


def said(request: Request, name: str, *arguments: str) -> object:
    """What an error of another path's says."""
    try:
        return globals()[name.replace("-", "_")](request, *arguments)
    except Err as error:
        return [type(error.value).__name__, getattr(error.value, "value", None)]


def sql(_request: Request, database: str, *statements: str) -> object:
    """Of one connection: the rows of each statement, then the last row that was inserted, and what was changed."""
    with Connection.open(database) as opened:
        found: list[object] = []
        for statement in statements:
            rows = opened.execute(unquote(statement), []).rows
            found.append([[_shown(value) for value in row.values] for row in rows])
        return [*found, opened.last_insert_rowid(), opened.changes()]


def sql_kinds(_request: Request, database: str) -> object:
    """Values of all types, there and back."""
    with Connection.open(database) as opened:
        opened.execute("CREATE TABLE IF NOT EXISTS kinds (id INTEGER PRIMARY KEY, i, r, t, b, n)", [])
        parameters = [
            Value_Integer(-(1 << 63)),
            Value_Real(0.1),
            Value_Text("ü'?"),
            Value_Blob(b"\0\xff"),
            Value_Null(),
        ]
        opened.execute("INSERT INTO kinds (i, r, t, b, n) VALUES (?, ?, ?, ?, ?)", parameters)
        inserted = [opened.last_insert_rowid(), opened.changes()]
        found = opened.execute("SELECT i, r, t, b, n, 1 AS one FROM kinds ORDER BY id DESC LIMIT 1", [])
        row = [_shown(value) for value in found.rows[0].values]
        return {"columns": found.columns, "row": row, "inserted": inserted}


def redis(_request: Request, address: str) -> object:
    with redis_client.open(f"redis://{address}") as connection:
        connection.set("text", b"value")
        connection.del_(["number", "set"])
        return {
            "get": connection.get("text").decode(),
            "missing": connection.get("missing"),
            "incr": [connection.incr("number"), connection.incr("number")],
            "sadd": connection.sadd("set", ["a", "b", "b"]),
            "srem": connection.srem("set", ["a", "c"]),
            "smembers": connection.smembers("set"),
            "execute": [
                _plain(result)
                for command, arguments in (
                    ("set", [RedisParameter_Binary(b"raw"), RedisParameter_Int64(7)]),
                    ("GET", [RedisParameter_Binary(b"raw")]),
                    ("GET", [RedisParameter_Binary(b"missing")]),
                    ("STRLEN", [RedisParameter_Binary(b"raw")]),
                    ("MGET", [RedisParameter_Binary(b"raw"), RedisParameter_Binary(b"text")]),
                )
                for result in connection.execute(command, arguments)
            ],
        }


def _plain(case: object) -> list[object]:
    value = getattr(case, "value", None)
    return [type(case).__name__.partition("_")[2], value.decode() if isinstance(value, bytes) else value]


def reach(_request: Request, address: str) -> object:
    """A server by its whole address: what it says of the connection."""
    address = unquote(address)
    match address.partition(":")[0]:
        case "redis" | "rediss":
            with redis_client.open(address) as connection:
                connection.set("reached", b"value")
                return connection.get("reached").decode()
        case "postgres":
            with postgres4.Connection.open(address) as connection:
                return _rows(connection.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", []))["rows"]
        case "mysql":
            with mysql.open(address) as connection:
                return _rows(connection.query("SHOW STATUS LIKE 'Ssl_version'", []))["rows"]
    with mqtt.open(address, "", "", 30) as connection:
        return connection.publish("reached", b"value", Qos.AT_LEAST_ONCE)


def redis_type_error(_request: Request, address: str) -> object:
    with redis_client.open(f"redis://{address}") as connection:
        connection.set("text", b"value")
        return connection.sadd("text", ["a"])


def publish(_request: Request, address: str, channel: str, text: str) -> None:
    with redis_client.open(f"redis://{address}") as connection:
        connection.publish(channel, text.encode())


def mqtt_publish(_request: Request, address: str, topic: str, text: str) -> None:
    with mqtt.open(f"mqtt://{address}", "", "", 30) as connection:
        for qos in Qos:
            connection.publish(topic, text.encode(), qos)


def mysql_values(_request: Request, where: str) -> object:
    """``where``: USER:PASSWORD@HOST:PORT"""
    with mysql.open(f"mysql://{where}/test") as connection:
        connection.execute("DROP TABLE IF EXISTS kinds", [])
        connection.execute(
            "CREATE TABLE kinds (id INT AUTO_INCREMENT PRIMARY KEY, small TINYINT, big BIGINT UNSIGNED, f DOUBLE, "
            "t VARCHAR(40), b BLOB, day DATE, n INT)",
            [],
        )
        parameters = [
            rdbms_types.ParameterValue_Int8(-5),
            rdbms_types.ParameterValue_Uint64(1 << 63),
            rdbms_types.ParameterValue_Floating64(0.5),
            rdbms_types.ParameterValue_Str("O'Neill \\ 100% ? ü"),
            rdbms_types.ParameterValue_Binary(b"\0\xff'"),
            rdbms_types.ParameterValue_DbNull(),
        ]
        connection.execute(
            "INSERT INTO kinds (small, big, f, t, b, day, n) VALUES (?, ?, ?, ?, ?, '2024-02-29', ?) -- really?",
            parameters,
        )
        return _rows(connection.query("SELECT * FROM kinds WHERE t LIKE '%100\\%%' AND small = ?", parameters[:1]))


def mysql_error(_request: Request, where: str) -> object:
    with mysql.open(f"mysql://{where}/test") as connection:
        return _rows(connection.query("SELEKT", []))


def _rows(found: Any) -> dict[str, object]:
    """Column names and types, and the rows."""
    columns = [[column.name, _kind(column.data_type)] for column in found.columns]
    return {"columns": columns, "rows": [[_shown(value) for value in row] for row in found.rows]}


def _kind(kind: object) -> str:
    return kind.name if hasattr(kind, "name") else type(kind).__name__


def _shown(case: object) -> list[object]:
    value = getattr(case, "value", None)
    return [type(case).__name__.partition("_")[2], value.hex() if isinstance(value, bytes) else repr(value)]


def postgres_values(_request: Request, where: str) -> object:
    with postgres.open(f"postgres://{where}/postgres?sslmode=disable") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS people (id SERIAL PRIMARY KEY, name TEXT)", [])
        connection.execute("DELETE FROM people", [])
        changed = connection.execute(
            "INSERT INTO people (name) VALUES ($1), ('bob')", [rdbms_types.ParameterValue_Str("ada")]
        )
        found = connection.query(
            "SELECT name, length(name) AS long, 1::int2 AS two, 2::int8 AS eight, 1.5::float8 AS f, true AS yes, "
            "'\\x00ff'::bytea AS raw, NULL::text AS none, '2024-02-29'::date AS day "
            "FROM people WHERE name <> $1 ORDER BY name",
            [rdbms_types.ParameterValue_Str("bob")],
        )
        return {"changed": changed, **_rows(found)}


def postgres_moments(_request: Request, where: str) -> object:
    with postgres3.Connection.open(f"postgres://{where}/postgres?sslmode=disable") as connection:
        parameters = [
            postgres3.ParameterValue_Date((2024, 2, 29)),
            postgres3.ParameterValue_Time((23, 59, 58, 1000)),
            postgres3.ParameterValue_Datetime((1999, 12, 31, 1, 2, 3, 0)),
            postgres3.ParameterValue_Timestamp(86400),
        ]
        return _rows(connection.query("SELECT $1::date, $2::time, $3::timestamp, $4::timestamptz", parameters))


def postgres_more(_request: Request, where: str) -> object:
    host, _, port = where.rpartition("@")[2].partition(":")
    user, _, password = where.rpartition("@")[0].partition(":")
    address = f"host={host} port={port} user={user} password={password} dbname=postgres sslmode=disable"
    inclusive, exclusive = postgres4.RangeBoundKind.INCLUSIVE, postgres4.RangeBoundKind.EXCLUSIVE
    with postgres4.Connection.open(address) as connection:
        parameters = [
            postgres4.ParameterValue_Uuid("12345678-1234-5678-1234-567812345678"),
            postgres4.ParameterValue_Jsonb(b'{"a": [1]}'),
            postgres4.ParameterValue_Decimal("123.4500"),
            postgres4.ParameterValue_RangeInt32(((1, inclusive), (5, exclusive))),
            postgres4.ParameterValue_RangeDecimal((None, ("2.5", inclusive))),
            postgres4.ParameterValue_ArrayStr(["a", None]),
            postgres4.ParameterValue_ArrayDecimal(["1.10", None]),
            postgres4.ParameterValue_Interval(postgres4.Interval(5, 3, 14)),
        ]
        kinds = ["uuid", "jsonb", "numeric", "int4range", "numrange", "text[]", "numeric[]", "interval"]
        chosen = ", ".join(f"${number}::{kind}" for number, kind in enumerate(kinds, 1))
        return _rows(connection.query(f"SELECT {chosen}, '1.2.3.4'::inet", parameters))


def postgres_error(_request: Request, where: str) -> object:
    with postgres4.Connection.open(f"postgres://{where}/postgres?sslmode=disable") as connection:
        try:
            connection.query("SELECT * FROM nowhere", [])
        except Err as error:
            return [type(error.value).__name__, error.value.value.value.code]
    return None


def postgres_wrong_type(_request: Request, where: str) -> object:
    with postgres4.Connection.open(f"postgres://{where}/postgres?sslmode=disable") as connection:
        return _rows(connection.query("SELECT $1::int4", [postgres4.ParameterValue_Str("seven")]))
