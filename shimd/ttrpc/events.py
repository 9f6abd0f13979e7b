"""The events that a connection object makes of the bytes it is fed."""

from dataclasses import dataclass

from shimd.ttrpc.envelope import Request, Response, Status
from shimd.ttrpc.errors import TtrpcError


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """Server: a stream begins."""

    stream_id: int
    request: Request
    unary: bool
    """Only a response may answer it; else data may, too."""
    closed: bool
    """The client sends no data on the stream."""


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Data of a stream, or its end, or both."""

    stream_id: int
    data: bytes | None
    """``None``: no message (``b""`` is one)."""
    last: bool
    """The peer sends no more; on a client the stream is over."""


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """Client: a stream is over."""

    stream_id: int
    response: Response


@dataclass(frozen=True, slots=True)
class StreamRefused:
    """Server: the peer broke a rule. The stream, if there was one, is over; ``reply`` is to be sent."""

    stream_id: int
    status: Status
    reply: bytes


@dataclass(frozen=True, slots=True)
class StreamFailed:
    """Client: the peer broke a rule on this stream, which is over."""

    stream_id: int
    error: TtrpcError


@dataclass(frozen=True, slots=True)
class NeedData:
    """Nothing more can be made of the bytes so far."""


NEED_DATA = NeedData()

ServerEvent = RequestReceived | DataReceived | StreamRefused | NeedData
ClientEvent = ResponseReceived | DataReceived | StreamFailed | NeedData
