"""Limits of one connection."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of one connection, so that no peer can make the process grow or stand still."""

    calls: int = 1024
    """Calls at work at a time. More wait unread in the socket."""
    write_buffer: int = 1 << 20
    """Bytes that the peer has not read. Above that, handlers wait before they answer."""
    stream_buffer: int = 1 << 18
    """Bytes on a stream that the handler, or the client's caller, has not taken. One message always fits."""
    patience: float = 1.0
    """Seconds for which one full stream, or full :attr:`calls`, may hold up the whole connection. ttrpc has no flow
    control per stream; when time is up the call in question fails with ``RESOURCE_EXHAUSTED`` (Go fails it too, after
    one second)."""


DEFAULT_LIMITS = Limits()
