"""One call on the server, from the request to the last word."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import anyio
import anyio.lowlevel

from shimd.ttrpc._inbox import Inbox
from shimd.ttrpc._link import Link
from shimd.ttrpc.codes import Code
from shimd.ttrpc.envelope import OK, Status
from shimd.ttrpc.errors import MessageTooLarge, StatusError
from shimd.ttrpc.method import Call, Method
from shimd.ttrpc.server_connection import ServerConnection

_logger = logging.getLogger("shimd.ttrpc")
_TOO_LATE = Status(Code.DEADLINE_EXCEEDED, "context deadline exceeded")


class RunningCall:
    """A handler at work. The connection's reader feeds :attr:`inbox`."""

    def __init__(
        self, stream_id: int, method: Method[Any, Any], call: Call, payload: bytes, inbox: Inbox | None
    ) -> None:
        """
        :param inbox: where the client's messages come in, for a method whose client streams
        """
        self.stream_id = stream_id
        self.inbox = inbox
        self._scope = _scope(method, call)
        self._method = method
        self._call = call
        self._payload = payload

    def abandon(self) -> None:
        """The call has its answer already: end the handler, unless it is a unary one, which then works for nothing."""
        if self._scope is not None:
            self._scope.cancel()

    async def run(self, connection: ServerConnection, link: Link) -> None:
        """Run the handler and answer. Raises nothing but the cancellation of the whole connection."""
        payload, status = b"", _TOO_LATE
        try:
            with self._scope or nullcontext():
                payload = await self._handle(connection, link)
                status = OK
        except StatusError as error:
            status = Status(error.code or Code.UNKNOWN, error.message)
        except MessageTooLarge as error:
            status = Status(Code.RESOURCE_EXHAUSTED, str(error))
        except Exception as error:
            _logger.exception("%s/%s failed", self._call.service, self._call.method)
            status = Status(Code.UNKNOWN, str(error) or type(error).__name__)
        await link.room()
        if connection.is_open(self.stream_id):  # else it has its answer already
            link.push(self._last_word(connection, status, payload))

    def _last_word(self, connection: ServerConnection, status: Status, payload: bytes) -> bytes:
        if self._method.server_streaming and not status.code:
            return connection.send_end(self.stream_id)
        try:
            return connection.send_response(self.stream_id, payload, status)
        except MessageTooLarge as error:
            return connection.send_response(self.stream_id, status=Status(Code.RESOURCE_EXHAUSTED, str(error)))

    async def _handle(self, connection: ServerConnection, link: Link) -> bytes:
        if self._call.deadline is not None:
            await anyio.lowlevel.checkpoint()  # a handler must not even begin that is too late
        request = self._decode(self._payload) if self.inbox is None else self._requests(self.inbox)
        result = self._method.handler(self._call, request)
        if not self._method.server_streaming:
            return self._method.encode(await result)
        async with _closing(result):
            async for response in result:
                await anyio.lowlevel.checkpoint()  # a handler that never waits must not keep others from running
                await link.room()
                if connection.is_open(self.stream_id):
                    link.push(connection.send_data(self.stream_id, self._method.encode(response)))
        return b""

    async def _requests(self, inbox: Inbox) -> AsyncIterator[Any]:
        while (message := await inbox.get()) is not None:
            yield self._decode(message)

    def _decode(self, message: bytes) -> Any:
        try:
            return self._method.decode(message)
        except Exception as error:  # whatever a protobuf library raises for garbage
            reason = f"ttrpc: error unmarshalling payload: {error or type(error).__name__}"
            raise StatusError(Code.INTERNAL, reason) from error


def _scope(method: Method[Any, Any], call: Call) -> anyio.CancelScope | None:
    """Returns a scope for calls that may have to be ended early; others are spared the microseconds."""
    if call.deadline is not None:
        return anyio.CancelScope(deadline=call.deadline)
    return anyio.CancelScope() if method.client_streaming or method.server_streaming else None


@asynccontextmanager
async def _closing(iterator: AsyncIterator[Any]) -> AsyncIterator[None]:
    """Let a handler that is a generator run its ``finally`` clauses now, not when it is collected."""
    try:
        yield
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()
