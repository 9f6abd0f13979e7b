"""Requests that an application of this process answers: no connection is made, and no address is needed."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import httpcore
from anyio.abc import TaskGroup

AsgiApplication = Callable[
    [dict[str, Any], Callable[[], Awaitable[dict[str, Any]]], Callable[[dict[str, Any]], Awaitable[None]]],
    Awaitable[None],
]
#: Of the connection that there is none of.
_HOP = frozenset({b"connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade"})


class InProcess:
    """Sends requests as httpcore's pools do."""

    def __init__(self, application: AsgiApplication, tasks: TaskGroup) -> None:
        self._application, self._tasks = application, tasks

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """:raises httpcore.RemoteProtocolError: the application gave no answer"""
        call = _Call(request)
        self._tasks.start_soon(call.run, self._application)
        try:
            await call.begun.wait()
        except BaseException:  # given up: what it writes has nobody to read it
            await call.aclose()
            raise
        if call.status is None:
            await call.aclose()
            raise httpcore.RemoteProtocolError("the application gave no answer")
        return httpcore.Response(call.status, headers=call.headers, content=call)


class _Call:
    """One request, and the body of its response."""

    def __init__(self, request: httpcore.Request) -> None:
        self._request = request
        self._sent: AsyncIterator[bytes] | None = None
        self._chunks, self._reader = anyio.create_memory_object_stream[bytes](0)
        self._whole = False
        self.begun = anyio.Event()
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []

    async def run(self, application: AsgiApplication) -> None:
        try:
            await application(self._scope(), self._receive, self._send)
        except Exception:
            pass  # the guest reads no further, or the other has ended, of which its handler tells: we all go on
        finally:
            self._chunks.close()
            self.begun.set()

    def _scope(self) -> dict[str, Any]:
        url = self._request.url
        path, _, query = url.target.partition(b"?")
        headers = [(name.lower(), value) for name, value in self._request.headers]
        return {
            "type": "http",
            "http_version": "1.1",
            "method": self._request.method.decode("ascii"),
            "scheme": "http",
            "path": path.decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "headers": [(name, value) for name, value in headers if name not in _HOP],
            "client": ("0.0.0.0", 0),  # as in Spin
            "server": (url.host.decode("ascii"), url.port or 80),
        }

    async def _receive(self) -> dict[str, Any]:
        if self._sent is None:
            self._sent = aiter(self._request.stream)  # type: ignore[arg-type]
        async for chunk in self._sent:
            return {"type": "http.request", "body": chunk, "more_body": True}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], [*message["headers"]]
            self.begun.set()
            return
        if data := message.get("body"):
            await self._chunks.send(data)
        self._whole = not message.get("more_body")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._reader:
            yield chunk
        if not self._whole:
            raise httpcore.RemoteProtocolError("the application ended in the middle of its answer")

    async def aclose(self) -> None:
        self._reader.close()
