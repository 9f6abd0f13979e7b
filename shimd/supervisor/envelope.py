"""The request by which containerd gets an event (proto/containerd/services/events/ttrpc/v1/events.proto).

Four of them belong to the life of each app. They are encoded by hand, as ttrpc's own messages are, which takes less
time.
"""

from datetime import UTC, datetime, timedelta

from shimd.ttrpc.wire import bytes_field, int_field

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND, _MICROSECOND = timedelta(seconds=1), timedelta(microseconds=1)


def forward_request(time: datetime, namespace: str, topic: str, event: bytes) -> bytes:
    """A ForwardRequest.

    :param event: a ``google.protobuf.Any``
    """
    seconds, rest = divmod(time - _EPOCH, _SECOND)
    timestamp = int_field(1, seconds) + int_field(2, rest // _MICROSECOND * 1000)
    envelope = bytes_field(1, timestamp) + _text(2, namespace) + _text(3, topic) + bytes_field(4, event)
    return bytes_field(1, envelope)


def packed_any(type_url: str, value: bytes) -> bytes:
    """A ``google.protobuf.Any``."""
    return _text(1, type_url) + (bytes_field(2, value) if value else b"")


def _text(number: int, value: str) -> bytes:
    return bytes_field(number, value.encode()) if value else b""
