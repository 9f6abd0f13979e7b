"""A Spin 4 component of many paths, by spin-sdk 5 (WASI 0.3): each shows one thing that Spin gives."""

import asyncio
import json
from typing import Any
from urllib.parse import unquote

from componentize_py_types import Err
from spin_sdk import http, key_value, mqtt, mysql, postgres, sqlite, variables
from spin_sdk import redis as redis_client
from spin_sdk.http import Request, Response
from spin_sdk.sqlite import Value_Integer, Value_Text
from spin_sdk.wit.imports import spin_mysql_mysql_3_0_0 as wit_mysql
from spin_sdk.wit.imports import spin_postgres_postgres_4_2_0 as wit_postgres
from spin_sdk.wit.imports.spin_redis_redis_3_0_0 import RedisParameter_Binary


class HttpHandler(http.Handler):
    async def handle_request(self, request: Request) -> Response:
        name, *arguments = request.headers["spin-path-info"].strip("/").split("/")
        try:
            status, answer = 200, await globals()[name.replace("-", "_")](request, *arguments)
        except Err as error:
            status, answer = 500, type(error.value).__name__
        return Response(status, {"content-type": "application/json"}, json.dumps(answer).encode())


async def about(request: Request) -> object:
    headers = {name: value for name, value in request.headers.items() if name.startswith("spin-")}
    return {"uri": request.uri, "headers": headers}


async def variable(_request: Request, name: str) -> object:
    return await variables.get(name)


async def counter(_request: Request, store: str = "default") -> object:
    """One more each time."""
    opened = await key_value.open(store)
    count = int(await opened.get("count") or b"0") + 1
    await opened.set("count", str(count).encode())
    return count


async def keys(_request: Request) -> object:
    opened = await key_value.open("default")
    for key in ("a", "b", "c"):
        await opened.set(key, b"1")
    await opened.delete("b")
    found, end = await opened.get_keys()
    names = await _all(found)
    await end.read()
    return {"keys": names, "exists": [await opened.exists("a"), await opened.exists("b")], "b": await opened.get("b")}


async def people(_request: Request, name: str) -> object:
    with await sqlite.Connection.open("default") as database:
        await database.execute("CREATE TABLE IF NOT EXISTS people (id INTEGER PRIMARY KEY, name TEXT)", [])
        await database.execute("INSERT INTO people (name) VALUES (?)", [Value_Text(name)])
        changed = [await database.last_insert_rowid(), await database.changes()]
        columns, rows, end = await database.execute(
            "SELECT id, name FROM people WHERE id >= ? ORDER BY id", [Value_Integer(1)]
        )
        found = [[value.value for value in row.values] for row in await _all(rows)]
        await end.read()
        return {"columns": columns, "rows": found, "changed": changed}


async def bad_sql(_request: Request) -> object:
    with await sqlite.Connection.open("default") as database:
        return await database.execute("SELEKT", [])


async def fetch(_request: Request, *parts: str, scheme: str = "http") -> object:
    answer = await http.send(Request("GET", f"{scheme}://" + "/".join(parts), {}, None))
    return [answer.status, (answer.body or b"").decode()]


async def fetch_safely(request: Request, *parts: str) -> object:
    """By TLS."""
    return await fetch(request, *parts, scheme="https")


async def own(_request: Request, *parts: str) -> object:
    """Of the application itself."""
    answer = await http.send(Request("GET", "/" + "/".join(parts), {}, None))
    return [answer.status, (answer.body or b"").decode()]


async def redis(_request: Request, address: str) -> object:
    with await redis_client.open(f"redis://{address}") as connection:
        await connection.set("text", b"value")
        await connection.del_(["number", "set"])
        numbers = [await connection.incr("number"), await connection.incr("number")]
        members = [await connection.sadd("set", ["a", "b", "b"]), await connection.srem("set", ["a", "c"])]
        text, missing = await connection.get("text"), await connection.get("missing")
        done = await connection.execute("STRLEN", [RedisParameter_Binary(b"text")])
        return [text.decode(), missing, numbers, members, await connection.smembers("set"), [it.value for it in done]]


async def reach(_request: Request, address: str) -> object:
    """A server by its whole address: what it says of the connection, or its error's text."""
    try:
        return await _reached(unquote(address))
    except Err as error:
        return [type(error.value).__name__, getattr(error.value, "value", None)]


async def _reached(address: str) -> object:
    match address.partition(":")[0]:
        case "redis" | "rediss":
            with await redis_client.open(address) as connection:
                await connection.set("reached", b"value")
                return (await connection.get("reached")).decode()
        case "postgres":
            with await postgres.Connection.open(address) as connection:
                return await _secured(connection)
        case "mysql":
            with await mysql.open(address) as connection:
                return (await _rows(*await connection.query("SHOW STATUS LIKE 'Ssl_version'", [])))["rows"]
    with await mqtt.open(address, "", "", 30) as connection:
        return await connection.publish("reached", b"value", mqtt.Qos.AT_LEAST_ONCE)


async def trust(request: Request, address: str) -> object:
    """PostgreSQL, by the authority that the request has."""
    builder = wit_postgres.ConnectionBuilder(unquote(address))
    builder.set_ca_root((request.body or b"").decode())
    try:
        with await builder.build_async() as connection:
            found = await connection.query_async("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", [])
            return (await _rows(*found))["rows"]
    except Err as error:
        return [type(error.value).__name__, error.value.value]


async def _secured(connection: Any) -> object:
    found = await connection.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", [])
    return (await _rows(*found))["rows"]


async def read(_request: Request, address: str, key: str = "text") -> object:
    """By one command, on a connection of its own."""
    with await redis_client.open(f"redis://{address}") as connection:
        value = await connection.get(key)
        return len(value) if value else None


async def hold(_request: Request, address: str, key: str) -> object:
    """Wait for what comes on a list, with a connection."""
    with await redis_client.open(f"redis://{address}") as connection:
        timeout = [RedisParameter_Binary(key.encode()), RedisParameter_Binary(b"0")]
        return [it.value.decode() for it in await connection.execute("BLPOP", timeout)]


async def leave(_request: Request, address: str) -> object:
    """A connection that its guest does not drop."""
    kept.append(await redis_client.open(f"redis://{address}"))
    return len(kept)


kept: list[Any] = []


async def mqtt_publish(_request: Request, address: str, topic: str, text: str) -> object:
    with await mqtt.open(f"mqtt://{address}", "", "", 30) as connection:
        for qos in mqtt.Qos:
            await connection.publish(topic, text.encode(), qos)
    return None


async def mysql_values(_request: Request, where: str) -> object:
    """``where``: USER:PASSWORD@HOST:PORT"""
    with await mysql.open(f"mysql://{where}/test") as connection:
        await connection.execute("CREATE OR REPLACE TABLE kinds (big BIGINT UNSIGNED, t TEXT, b BLOB, n INT)", [])
        given = [
            wit_mysql.ParameterValue_Uint64(1 << 63),
            wit_mysql.ParameterValue_Str("ü?"),
            wit_mysql.ParameterValue_Binary(b"\0\xff"),
            wit_mysql.ParameterValue_DbNull(),
        ]
        await connection.execute("INSERT INTO kinds VALUES (?, ?, ?, ?)", given)
        return await _rows(*await connection.query("SELECT * FROM kinds WHERE big = ?", given[:1]))


async def mysql_many(_request: Request, where: str, count: str) -> object:
    """Rows of a kilobyte each: their number, once all, and once some of them. The connection is good for more."""
    with await mysql.open(f"mysql://{where}/test") as connection:
        statement = f"SELECT seq, REPEAT('x', 1000) FROM seq_1_to_{count}"
        _columns, rows, end = await connection.query(statement, [])
        found = await _count(rows)
        await end.read()
        _columns, rows, end = await connection.query(statement, [])
        with rows:
            first = len(await rows.read(10))
        await end.read()
        again = await _rows(*await connection.query("SELECT 'again'", []))
        return [found, first, again["rows"]]


async def mysql_error(_request: Request, where: str) -> object:
    with await mysql.open(f"mysql://{where}/test") as connection:
        return await connection.query("SELEKT", [])


async def postgres_values(_request: Request, where: str) -> object:
    connection = await postgres.Connection.open(f"postgres://{where}/postgres?sslmode=disable")
    with connection:
        await connection.execute("CREATE TEMPORARY TABLE people (name TEXT)", [])
        changed = await connection.execute(
            "INSERT INTO people VALUES ($1), ('bob')", [wit_postgres.ParameterValue_Str("ada")]
        )
        given = [wit_postgres.ParameterValue_Decimal("1.50"), wit_postgres.ParameterValue_RangeInt32((None, None))]
        found = await connection.query(
            "SELECT name, $1::numeric, $2::int4range, array['a', NULL], NULL::text, '1.2.3.4'::inet, interval '1 day' "
            "FROM people ORDER BY name",
            given,
        )
        return {"changed": changed, **await _rows(*found)}


async def postgres_many(_request: Request, where: str, count: str) -> object:
    """As of MySQL; and two that are asked for at a time."""
    connection = await postgres.Connection.open(f"postgres://{where}/postgres?sslmode=disable")
    with connection:
        statement = f"SELECT n, repeat('x', 1000) FROM generate_series(1, {count}) n"
        _columns, rows, end = await connection.query(statement, [])
        found = await _count(rows)
        await end.read()
        _columns, rows, end = await connection.query(statement, [])
        with rows:
            first = len(await rows.read(10))
        await end.read()
        two = await asyncio.gather(connection.execute("SELECT 1", []), connection.execute("SELECT 2", []))
        return [found, first, two]


async def postgres_late(_request: Request, where: str) -> object:
    """Rows that are read when their connection was dropped."""
    connection = await postgres.Connection.open(f"postgres://{where}/postgres?sslmode=disable")
    with connection:
        found = await connection.query("SELECT n FROM generate_series(1, 5000) n", [])
    columns, rows, end = found
    count = await _count(rows)
    await end.read()
    return [columns[0].name, count]


async def postgres_breaks(_request: Request, where: str) -> object:
    """An error that comes after rows."""
    connection = await postgres.Connection.open(f"postgres://{where}/postgres?sslmode=disable")
    with connection:
        _columns, rows, end = await connection.query("SELECT 1 / (2000 - n) FROM generate_series(1, 3000) n", [])
        count = await _count(rows)
        answer = await end.read()
        return [count, type(answer.value).__name__, answer.value.value.value.code]


async def postgres_built(_request: Request, where: str) -> object:
    builder = wit_postgres.ConnectionBuilder(f"postgres://{where}/postgres?sslmode=disable")
    with await builder.build_async() as connection:
        return await connection.execute_async("SELECT 1", [])


async def postgres_wrong_root(_request: Request, where: str) -> object:
    builder = wit_postgres.ConnectionBuilder(f"postgres://{where}/postgres")
    builder.set_ca_root("none")
    return None


async def postgres_sleep(_request: Request, where: str, seconds: str) -> object:
    connection = await postgres.Connection.open(f"postgres://{where}/postgres?sslmode=disable")
    with connection:
        return await connection.execute(f"SELECT pg_sleep({seconds})", [])


async def _rows(columns: Any, rows: Any, end: Any) -> dict[str, Any]:
    found = [[_shown(value) for value in row] for row in await _all(rows)]
    await end.read()
    return {"columns": [column.name for column in columns], "rows": found}


def _shown(case: object) -> list[str]:
    return [type(case).__name__.partition("_")[2], repr(getattr(case, "value", None))]


async def _count(stream: Any) -> int:
    count = 0
    with stream:
        while not stream.writer_dropped:
            count += len(await stream.read(1000))
    return count


async def _all(stream: Any) -> list[Any]:
    found = []
    with stream:
        while not stream.writer_dropped:
            found += await stream.read(16)
    return found
