"""Databases of libSQL and Turso, by HTTP (the protocol Hrana, ``/v2/pipeline``)."""

import base64
import binascii
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from anyio import from_thread

from shimd.apps.spin.backends import Libsql, ServiceError
from shimd.apps.spin.database import QueryResult
from shimd.apps.spin.services import Services, shown
from shimd.component.results import Case
from shimd.wasi.waiting import wait_for

#: Seconds: a statement takes as long as it takes.
_PATIENCE = 600.0


class LibsqlConnection:
    """One connection of a guest's: its statements share a transaction, if it has begun one."""

    def __init__(self, services: Services, where: Libsql) -> None:
        self._services, self._where = services, where
        self._url = where.url
        self._baton: str | None = None
        """What the server knows the connection by; ``None``: it has nothing to remember."""

    def execute(self, statement: str, parameters: Sequence[Case]) -> QueryResult:
        """Run one statement. Called on a guest's thread.

        :raises ServiceError: the server cannot be reached, or says that the statement is wrong
        """
        arguments = [_argument(case) for case in parameters]
        found = wait_for(self._ask, {"type": "execute", "stmt": {"sql": statement, "args": arguments}})
        with self._understood():
            return _result(found["response"]["result"])

    def close(self) -> None:
        """Have the server forget the connection, without waiting for it."""
        if self._baton is not None:
            from_thread.run_sync(self._services.begin, self._forget)

    async def _forget(self) -> None:
        await self._ask({"type": "close"})

    async def _ask(self, request: Mapping[str, object]) -> Mapping[str, Any]:
        """Returns what a request's result is.

        :raises ServiceError: there is none, or an error
        """
        headers = {"Content-Type": "application/json"}
        if self._where.token:
            headers["Authorization"] = f"Bearer {self._where.token}"
        body = json.dumps({"baton": self._baton, "requests": [request]}).encode()
        self._baton = None  # it is good for one request
        url = f"{self._url.rstrip('/')}/v2/pipeline"
        status, text = await self._services.ask("POST", url, headers, body, patience=_PATIENCE)
        if status != 200:
            raise ServiceError(f"{shown(url)} answers {status}: {text[:1000].decode(errors='replace').strip()}")
        with self._understood():
            answer = json.loads(text)
            self._baton = answer["baton"]
            self._url = answer.get("base_url") or self._url  # where this connection is held
            (result,) = answer["results"]
            if result["type"] != "ok":
                raise ServiceError(str(result["error"]["message"]))
            found: Mapping[str, Any] = result
            return found

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """:raises ServiceError: the block does not find what it looks for"""
        try:
            yield
        except (ValueError, TypeError, LookupError) as error:
            raise ServiceError(f"{shown(self._where.url)} does not answer as libSQL does: {error!r}") from None


def _argument(case: Case) -> dict[str, object]:
    match case.tag:
        case "integer":  # as a text: numbers of JSON are not that exact
            return {"type": "integer", "value": str(case.payload)}
        case "real":
            if not math.isfinite(case.payload):
                raise ServiceError("a parameter is infinite, or no number, which the protocol does not have")
            return {"type": "float", "value": case.payload}
        case "text":
            return {"type": "text", "value": case.payload}
        case "blob":
            return {"type": "blob", "base64": base64.b64encode(case.payload).decode()}
        case _:
            return {"type": "null"}


def _result(found: Mapping[str, Any]) -> QueryResult:
    last = found.get("last_insert_rowid")
    return QueryResult(
        columns=[column["name"] or "" for column in found["cols"]],
        rows=[tuple(_value(value) for value in row) for row in found["rows"]],
        changes=int(found["affected_row_count"]),
        last_row=None if last is None else int(last),
    )


def _value(value: Mapping[str, Any]) -> object:
    match value["type"]:
        case "integer":
            return int(value["value"])
        case "float":
            return float(value["value"])
        case "text":
            return str(value["value"])
        case "blob":
            return _decoded(value["base64"])
        case "null":
            return None
        case other:
            raise ValueError(f"a value of the type {other}")


def _decoded(text: str) -> bytes:
    """Decode base64, with padding or without: servers differ."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
