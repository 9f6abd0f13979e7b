"""Nanoseconds since the epoch as protobuf's Timestamp."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(nanoseconds: int) -> datetime:
    """Returns a time as betterproto2 wants it: an aware datetime, which holds microseconds."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
