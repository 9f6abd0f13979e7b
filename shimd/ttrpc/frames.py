"""Frames: a 10-byte header, then at most 4 MiB of data (ttrpc PROTOCOL.md, "Message Frame").

    length of the data (32 bits) | stream id (32) | message type (8) | flags (8) | data

Numbers are big-endian. The reader takes bytes in any portions and gives whole frames; it never holds more than one
frame and what it was last fed.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from shimd.ttrpc.errors import MessageTooLarge

#: Most bytes of data that a frame may carry.
MAX_DATA = 4 << 20
#: Largest stream id.
MAX_STREAM_ID = (1 << 32) - 1

_HEADER = struct.Struct(">IIBB")


class FrameType(IntEnum):
    REQUEST = 1
    RESPONSE = 2
    DATA = 3


#: The sender of this frame sends nothing more on the stream (request, data).
REMOTE_CLOSED = 0x01
#: The sender of this request will send data on the stream.
REMOTE_OPEN = 0x02
#: This data frame carries no message, not even an empty one.
NO_DATA = 0x04


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. ``type`` is a plain integer: the peer may send types that do not exist yet."""

    type: int
    flags: int
    stream_id: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class OversizedFrame:
    """A frame whose data was longer than :data:`MAX_DATA`, and was thrown away."""

    stream_id: int
    length: int


def encode(frame_type: int, flags: int, stream_id: int, data: bytes = b"") -> bytes:
    """
    :raises MessageTooLarge: ``data`` is longer than :data:`MAX_DATA`
    """
    if len(data) > MAX_DATA:
        raise MessageTooLarge(f"message length {len(data)} exceed maximum message size of {MAX_DATA}")
    return _HEADER.pack(len(data), stream_id, frame_type, flags) + data


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._oversized: OversizedFrame | None = None
        self._discard = 0

    @property
    def unconsumed(self) -> bytes:
        """Bytes that were fed and are not yet part of a frame given by :meth:`next`."""
        return bytes(self._buffer)

    @property
    def discarding(self) -> bool:
        """Returns whether the reader is in the middle of an oversized frame."""
        return self._oversized is not None

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Frame | OversizedFrame | None:
        """Take the next frame off the buffer; ``None`` if it is not all there yet."""
        if self._oversized is not None:
            return self._skip()
        if len(self._buffer) < _HEADER.size:
            return None
        length, stream_id, frame_type, flags = _HEADER.unpack_from(self._buffer)
        if length > MAX_DATA:
            self._oversized, self._discard = OversizedFrame(stream_id, length), length + _HEADER.size
            return self._skip()
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            data = bytes(view[_HEADER.size : end])
        del self._buffer[:end]
        return Frame(frame_type, flags, stream_id, data)

    def _skip(self) -> OversizedFrame | None:
        """Throw away what there is of an oversized frame; it is reported once its last byte is gone."""
        skipped = min(self._discard, len(self._buffer))
        del self._buffer[:skipped]
        self._discard -= skipped
        if self._discard:
            return None
        frame, self._oversized = self._oversized, None
        return frame
