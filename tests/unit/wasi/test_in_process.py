"""Requests that an application of the same process answers."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import httpcore
import pytest

from shimd.wasi.http.in_process import AsgiApplication, InProcess

pytestmark = pytest.mark.anyio


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with what it has been sent, piece by piece."""
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-path", scope["raw_path"])]})
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": True})
    await send({"type": "http.response.body", "body": scope["query_string"]})


async def nothing(_scope: object, _receive: object, _send: object) -> None:
    raise ExceptionGroup("of its tasks", [ConnectionAbortedError()])


async def half(_scope: object, _receive: object, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ConnectionAbortedError


async def endless(_scope: object, _receive: object, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x", "more_body": True})


async def pieces() -> AsyncIterator[bytes]:
    yield b"a"
    yield b"b"


async def asked(
    application: AsgiApplication, request: httpcore.Request
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    failure: httpcore.RemoteProtocolError
    async with anyio.create_task_group() as tasks:
        try:
            async with aclosing(await InProcess(application, tasks).handle_async_request(request)) as response:
                return response.status, response.headers, await response.aread()
        except httpcore.RemoteProtocolError as error:
            failure = error  # out of the group as it is
    raise failure


async def test_a_request_with_a_body() -> None:
    request = httpcore.Request("POST", "http://one.spin.internal/a/b?c=d", content=pieces())
    assert await asked(echo, request) == (201, [(b"x-path", b"/a/b")], b"abc=d")


async def test_a_request_without_one() -> None:
    assert (await asked(echo, httpcore.Request("GET", "http://self.alt/")))[2] == b""


async def test_what_the_other_sees() -> None:
    seen: list[dict[str, Any]] = []

    async def note(scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen.append(scope)
        await echo(scope, receive, send)

    headers = [("Host", "one.spin.internal"), ("Transfer-Encoding", "chunked"), ("X-Own", "1")]
    await asked(note, httpcore.Request("PUT", "http://one.spin.internal/", headers=headers))
    (scope,) = seen
    assert (scope["method"], scope["scheme"], scope["server"]) == ("PUT", "http", ("one.spin.internal", 80))
    assert scope["headers"] == [(b"host", b"one.spin.internal"), (b"x-own", b"1")]


async def test_no_answer() -> None:
    with pytest.raises(httpcore.RemoteProtocolError, match="gave no answer"):
        await asked(nothing, httpcore.Request("GET", "http://x/"))


async def test_an_answer_that_is_cut_off() -> None:
    with pytest.raises(httpcore.RemoteProtocolError, match="in the middle"):
        await asked(half, httpcore.Request("GET", "http://x/"))


async def test_nobody_reads_further() -> None:
    """The other ends."""
    async with anyio.create_task_group() as tasks:
        response = await InProcess(endless, tasks).handle_async_request(httpcore.Request("GET", "http://x/"))
        async for _chunk in response.aiter_stream():
            break
        await response.aclose()
