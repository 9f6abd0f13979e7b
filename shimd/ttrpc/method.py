"""The methods that a server serves, by service and name.

A handler is an ordinary coroutine function, or asynchronous generator where the server streams, of two arguments: the
call (:class:`Call`) and the request, or an asynchronous iterator of requests where the client streams.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from shimd.ttrpc.envelope import Metadata

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

Decode = Callable[[bytes], RequestT]
Encode = Callable[[ResponseT], bytes]


@dataclass(frozen=True, slots=True)
class Call:
    """Facts about a call that a handler may want besides its request."""

    service: str
    method: str
    metadata: Metadata = ()
    deadline: float | None = None
    """The time at which the handler will be cancelled, on the clock of :func:`anyio.current_time`."""
    replayed: bool = False
    """Another process had the request before, and may have begun with it, or done all but answer."""

    def get(self, key: str) -> str | None:
        """The first value that the client sent for this key of metadata."""
        return next((value for name, value in self.metadata if name.lower() == key.lower()), None)


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT, ResponseT]):
    """A handler and how to turn bytes into its requests, and its responses into bytes.

    Make one with the class method for its kind. A handler answers with an error by raising
    :class:`~shimd.ttrpc.errors.StatusError`; any other exception is logged and becomes ``UNKNOWN``. It is cancelled
    when its deadline passes or the connection drops; what must not be cut short belongs into a shielded
    :class:`anyio.CancelScope`.
    """

    handler: Callable[[Call, Any], Any]
    decode: Decode[RequestT]
    encode: Encode[ResponseT]
    client_streaming: bool
    server_streaming: bool

    @classmethod
    def unary(
        cls,
        handler: Callable[[Call, RequestT], Awaitable[ResponseT]],
        decode: Decode[RequestT],
        encode: Encode[ResponseT],
    ) -> "Method[RequestT, ResponseT]":
        """One request, one response."""
        return cls(handler, decode, encode, client_streaming=False, server_streaming=False)

    @classmethod
    def server_stream(
        cls,
        handler: Callable[[Call, RequestT], AsyncIterator[ResponseT]],
        decode: Decode[RequestT],
        encode: Encode[ResponseT],
    ) -> "Method[RequestT, ResponseT]":
        """One request, any number of responses."""
        return cls(handler, decode, encode, client_streaming=False, server_streaming=True)

    @classmethod
    def client_stream(
        cls,
        handler: Callable[[Call, AsyncIterator[RequestT]], Awaitable[ResponseT]],
        decode: Decode[RequestT],
        encode: Encode[ResponseT],
    ) -> "Method[RequestT, ResponseT]":
        """Any number of requests, one response."""
        return cls(handler, decode, encode, client_streaming=True, server_streaming=False)

    @classmethod
    def bidirectional(
        cls,
        handler: Callable[[Call, AsyncIterator[RequestT]], AsyncIterator[ResponseT]],
        decode: Decode[RequestT],
        encode: Encode[ResponseT],
    ) -> "Method[RequestT, ResponseT]":
        """Any number of requests, any number of responses, in any order."""
        return cls(handler, decode, encode, client_streaming=True, server_streaming=True)


#: Services by full name (``package.Service``), each with its methods by name.
Services = Mapping[str, Mapping[str, Method[Any, Any]]]
