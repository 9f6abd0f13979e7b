"""Generated stubs over ttrpc.

::

    async with Client(await anyio.connect_unix(path)) as client:
        task = TaskStub(stub_channel(client))    # shimd.api.containerd.task.v3
        await task.create(CreateTaskRequest(id="web", …), timeout=10)

A stub raises what :meth:`shimd.ttrpc.Client.unary` raises.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from grpclib.const import Cardinality

from shimd.ttrpc.client import Client

if TYPE_CHECKING:  # grpclib's own client is heavy
    from grpclib.client import Channel


def stub_channel(client: Client, service: str | None = None) -> "Channel":
    """What the constructor of a generated stub takes. Unary methods only.

    :param service: the service's name on the wire, if it is not the stub's own (``containerd.task.v2.Task``)
    """
    return cast("Channel", _TtrpcChannel(client, service))


class _TtrpcChannel:
    """As much of grpclib's channel as stubs use."""

    def __init__(self, client: Client, service: str | None) -> None:
        self._client = client
        self._service = service

    @asynccontextmanager
    async def request(
        self,
        name: str,
        cardinality: Cardinality,
        request_type: type,
        reply_type: type,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  (grpclib's signature)
        deadline: Any = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncIterator["_Exchange"]:
        if cardinality is not Cardinality.UNARY_UNARY:
            raise TypeError(f"{name} streams")
        left = timeout if deadline is None else deadline.time_remaining()
        _, service, method = name.split("/")
        yield _Exchange(self._client, self._service or service, method, reply_type, left, metadata)


class _Exchange:
    """One request and its response, with the methods of grpclib's stream."""

    def __init__(
        self,
        client: Client,
        service: str,
        method: str,
        reply_type: Any,
        limit: float | None,
        metadata: Mapping[str, str] | None,
    ) -> None:
        self._client = client
        self._route = service, method
        self._reply_type = reply_type
        self._limit = limit
        self._metadata = metadata
        self._request: Any = None

    async def send_message(self, message: Any, *, end: bool = False) -> None:
        self._request = message

    async def recv_message(self) -> Any:
        return await self._client.call(
            *self._route, self._request, self._reply_type, timeout=self._limit, metadata=self._metadata
        )
