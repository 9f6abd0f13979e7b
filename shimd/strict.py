"""Parsing of messages that come from outside.

betterproto2 takes what it can get: a truncated string is a shorter string, a field of the wrong wire type becomes a
value of the wrong Python type. Go refuses the first and skips the second; here both are refused, so that what a handler
gets has the types that its annotations say.
"""

from typing import Any, TypeVar

import betterproto2
from betterproto2 import Message

from shimd.ttrpc import wire

MessageT = TypeVar("MessageT", bound=Message)

_VARINTS = {
    betterproto2.TYPE_ENUM,
    betterproto2.TYPE_BOOL,
    betterproto2.TYPE_INT32,
    betterproto2.TYPE_INT64,
    betterproto2.TYPE_UINT32,
    betterproto2.TYPE_UINT64,
    betterproto2.TYPE_SINT32,
    betterproto2.TYPE_SINT64,
}


def parse(message_type: type[MessageT], data: bytes) -> MessageT:
    """
    :raises ValueError: the bytes are not a message of this type
    """
    _check(message_type, data)
    try:
        return message_type.parse(data)
    except ValueError:  # of text that is not UTF-8, among others
        raise
    except Exception as error:
        raise ValueError(f"{message_type.__name__}: {error or type(error).__name__}") from error


def _check(message_type: Any, data: bytes) -> None:
    fields = message_type._betterproto
    for number, value in wire.fields(data):
        name = fields.field_name_by_number.get(number)
        if name is None:
            continue
        field = fields.meta_by_field_name[name]
        packed = field.repeated and isinstance(value, bytes)
        if isinstance(value, int) != (field.proto_type in _VARINTS) and not packed:
            raise wire.DecodeError(f"{message_type.__name__}.{name} has the wrong wire type")
        if field.proto_type in (betterproto2.TYPE_MESSAGE, betterproto2.TYPE_MAP):
            _check(field.unwrap() if field.unwrap else fields.cls_by_field[name], wire.blob(value))
