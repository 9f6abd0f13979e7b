"""The ASGI application of a Spin application: routes to components, each a handler of its own."""

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from shimd.apps.http.handler import AsgiReceive, AsgiScope, AsgiSend, Handler
from shimd.apps.spin import routes
from shimd.apps.spin.model import Application
from shimd.apps.spin.routes import SpinMatch, SpinRoute, StaticResponse
from shimd.apps.spin.telemetry import Telemetry

#: No content, and not modified: answers with these have no body.
_BODILESS = (204, 304)
_HEALTH, _INFO = "/.well-known/spin/health", "/.well-known/spin/info"


class SpinServer:
    """Entered before the first request (``async with``)."""

    def __init__(
        self, application: Application, handlers: Mapping[str, Handler], telemetry: Telemetry | None = None
    ) -> None:
        self._application = application
        self._handlers = handlers
        watch = telemetry or Telemetry()
        self._watched = {id: watch.component(id, handler) for id, handler in handlers.items()}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "SpinServer":
        for manager in self._handlers.values():
            await self._stack.enter_async_context(manager)
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._stack.aclose()

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        if scope["type"] != "http":
            return
        path = scope["raw_path"].decode("latin-1")
        if path == _HEALTH:
            await _answer(send, _plain(200, b"OK", "text/plain"))
        elif path == _INFO:
            about = {"name": self._application.name, "version": self._application.version}
            await _answer(send, _plain(200, json.dumps(about).encode(), "application/json"))
        elif match := routes.find(self._application.triggers.http, path):
            if match.route.response is not None:
                await _answer(send, match.route.response)
            else:
                await self._call(match, scope, receive, send)
        else:
            await _answer(send, _plain(404, b"", "text/plain"))

    def has(self, id: str) -> bool:
        """Returns whether a component answers requests."""
        return id in self._handlers

    async def call(self, id: str, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        """Have a component answer, whatever the path."""
        match = SpinMatch(SpinRoute("/...", id), scope["raw_path"].decode("latin-1"))
        await self._call(match, scope, receive, send)

    async def _call(self, match: SpinMatch, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        told = routes.headers(match, _url(scope), _client(scope))
        names = {name for name, _value in told}
        sent = [(name, value) for name, value in scope["headers"] if name not in names]
        await self._watched[match.route.component](scope | {"headers": [*sent, *told]}, receive, send)


def _url(scope: AsgiScope) -> str:
    host = dict(scope["headers"]).get(b"host", b"localhost").decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    path = scope["raw_path"].decode("latin-1")
    return f"{scope['scheme']}://{host}{path}" + (f"?{query}" if query else "")


def _client(scope: AsgiScope) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""


def _plain(status: int, body: bytes, kind: str) -> StaticResponse:
    return StaticResponse(status, (("content-type", kind),), body)


async def _answer(send: AsgiSend, response: StaticResponse) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in response.headers]
    body = b"" if response.status in _BODILESS else response.body
    if response.status not in _BODILESS:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
