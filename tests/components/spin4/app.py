"""A Spin 4 component of many paths, by spin-sdk 5 (WASI 0.3): each shows one thing that Spin gives."""

import json
from typing import Any

from componentize_py_types import Err
from spin_sdk import http, key_value, sqlite, variables
from spin_sdk.http import Request, Response
from spin_sdk.sqlite import Value_Integer, Value_Text


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


async def _all(stream: Any) -> list[Any]:
    found = []
    with stream:
        while not stream.writer_dropped:
            found += await stream.read(16)
    return found
