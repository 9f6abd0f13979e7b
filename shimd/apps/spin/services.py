"""HTTP requests of the host's own, to servers that ``/runtime-config.toml`` names: what holds for guests' is not for
these, since it is the operator who says where they go."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import anyio
import httpcore
from anyio import to_thread
from anyio.abc import TaskGroup

from shimd.apps.spin.backends import ServiceError
from shimd.wasi.trust import Trust

#: Seconds in which a server must take a connection.
_CONNECT = 10.0
#: Bytes of an answer, at most: as Spin has it.
MOST = 128 << 20
_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    UnicodeError,  # a name that no name server could have
)


class Services:
    """Asks servers, for all guests of an application; entered in the event loop before the first is asked."""

    def __init__(self, trust: Trust, told: Callable[[], Mapping[str, str]] = dict) -> None:
        """:param told: makes the headers that every request has besides"""
        self._trust, self._told = trust, told
        self._pool: httpcore.AsyncConnectionPool | None = None
        self._tasks: TaskGroup

    async def __aenter__(self) -> "Services":
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *_exception: Any) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)  # it would wrap what ends the block
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None

    def begin(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have something done that nobody waits for, nor for its errors. Called in the event loop."""
        self._tasks.start_soon(_quietly, work)

    async def ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"", *, patience: float
    ) -> tuple[int, bytes]:
        """Returns the status and the body of an answer. Redirects are answers like any.

        :param patience: seconds between two parts of an answer
        :raises ServiceError: there is none
        """
        timeout = {"connect": _CONNECT, "read": patience, "write": patience, "pool": patience}
        sent, found = [*headers.items(), *self._told().items()], bytearray()
        try:
            async with (await self._made()).stream(
                method, url, headers=sent, content=body or None, extensions={"timeout": timeout}
            ) as response:
                async for chunk in response.aiter_stream():
                    found += chunk
                    if len(found) > MOST:
                        raise ServiceError(f"{shown(url)}: the answer has more than {MOST} bytes")
        except _ERRORS as error:
            raise ServiceError(f"{shown(url)}: {str(error) or _words(error)}") from None
        return response.status, bytes(found)

    async def _made(self) -> httpcore.AsyncConnectionPool:
        if self._pool is None:  # the container's files, which may be slow, are in sight now
            context = await to_thread.run_sync(lambda: self._trust.context)
            made = httpcore.AsyncConnectionPool(ssl_context=context, max_connections=None, keepalive_expiry=15)
            self._pool = self._pool or made
        return self._pool


async def _quietly(work: Callable[[], Awaitable[None]]) -> None:
    with suppress(ServiceError):
        await work()


def shown(url: str) -> str:
    """Returns the address of a server, without a user and a password, for messages."""
    return str(httpcore.URL(url).origin)


def _words(error: Exception) -> str:
    return "it takes too long" if isinstance(error, httpcore.TimeoutException) else type(error).__name__
