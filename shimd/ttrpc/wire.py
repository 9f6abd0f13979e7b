"""The part of the protobuf wire format that ttrpc's envelopes need (protobuf.dev/programming-guides/encoding).

Written by hand so that the package needs no protobuf library, and its users may bring any.
"""

from collections.abc import Iterator

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_FIXED = {_I64: 8, _I32: 4}


class DecodeError(ValueError):
    """The bytes are not a message of this type."""


def varint(value: int) -> bytes:
    """Encode an integer; a negative one as 64-bit two's complement."""
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def int_field(number: int, value: int) -> bytes:
    return varint(number << 3 | _VARINT) + varint(value) if value else b""


def bytes_field(number: int, value: bytes) -> bytes:
    """A string, bytes or message field. Empty ones too are written: the caller knows whether presence matters."""
    return varint(number << 3 | _LEN) + varint(len(value)) + value


def signed(value: int) -> int:
    """The int64 that was sent as this unsigned varint."""
    return value - (1 << 64) if value >> 63 else value


def text(value: int | bytes) -> str:
    """
    :raises DecodeError: the field is not a string
    """
    try:
        return blob(value).decode()
    except UnicodeDecodeError:
        raise DecodeError("string field contains invalid UTF-8") from None


def blob(value: int | bytes) -> bytes:
    """
    :raises DecodeError: the field is not length-delimited
    """
    if isinstance(value, int):
        raise DecodeError("wrong wire type")
    return value


def number(value: int | bytes) -> int:
    """
    :raises DecodeError: the field is not a varint
    """
    if isinstance(value, bytes):
        raise DecodeError("wrong wire type")
    return value


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message in order: number, and an unsigned integer (varint) or bytes (anything else).

    :raises DecodeError: the message is truncated or malformed, or holds a group (obsolete; no ttrpc peer sends one)
    """
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        field, wire_type = tag >> 3, tag & 7
        if not 0 < field < 1 << 29:
            raise DecodeError("invalid field number")
        if wire_type == _VARINT:
            value, position = _read_varint(data, position)
            yield field, value
            continue
        if wire_type == _LEN:
            length, position = _read_varint(data, position)
        elif wire_type in _FIXED:
            length = _FIXED[wire_type]
        else:
            raise DecodeError(f"invalid wire type {wire_type}")
        end = position + length
        if end > len(data):
            raise DecodeError("message is truncated")
        yield field, data[position:end]
        position = end


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    if position < len(data) and (first := data[position]) < 0x80:  # nearly all are so short
        return first, position + 1
    value = shift = 0
    for byte in data[position : position + 10]:
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, position
        shift += 7
    raise DecodeError("varint is truncated" if position == len(data) else "varint is too long")
