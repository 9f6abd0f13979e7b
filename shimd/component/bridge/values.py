"""Values of the component model as MessagePack, and as Python has them (:mod:`shimd.component.values`)."""

from collections.abc import Callable, Set
from enum import IntEnum
from typing import Any

from msgpack import ExtType, packb, unpackb

from shimd.component.objects import Objects
from shimd.component.results import Case, Err, Ok
from shimd.component.streams import Future, Stream


class Extension(IntEnum):
    """Types of MessagePack's extensions, as ``native/wasmtime/src/bridge/values.rs`` has them."""

    TUPLE = 1
    CASE = 2
    OK = 3
    ERR = 4
    FLAGS = 5
    OWN = 6
    BORROW = 7
    STREAM = 8
    FUTURE = 9


def unpack(data: bytes | memoryview, objects: Objects) -> Any:
    """Returns what a guest has said.

    :param objects: the guest's; those that are handed over leave it
    :raises ValueError: it is none of ours
    """

    def extension(kind: int, inner: bytes) -> Any:
        match kind:
            case Extension.TUPLE:
                return tuple(read(inner))
            case Extension.CASE:
                return Case(*read(inner))
            case Extension.OK:
                return Ok(read(inner))
            case Extension.ERR:
                return Err(read(inner))
            case Extension.FLAGS:
                return frozenset(read(inner))
            case Extension.OWN:
                return objects.remove(int.from_bytes(inner))
            case Extension.BORROW:
                return objects.table[int.from_bytes(inner)]
        raise ValueError(f"there is no extension {kind}")

    def read(part: bytes | memoryview) -> Any:
        return unpackb(part, ext_hook=extension, strict_map_key=False)

    try:
        return read(data)
    except (KeyError, TypeError, RecursionError) as error:  # no such object, no names where there are to be some
        raise ValueError(f"{type(error).__name__}: {error}") from None


def pack(value: Any, add: Callable[[Any], int]) -> bytes:
    """Returns what a provider answers.

    What is no value is an object, which the guest gets a handle of.

    :param add: gives an object a number
    :raises ValueError: a number or a text that MessagePack does not have
    """

    def other(value: Any) -> Any:
        match value:
            case Case():
                return ExtType(Extension.CASE, write([value.tag, value.payload]))
            case Ok():
                return ExtType(Extension.OK, write(value.value))
            case Err():
                return ExtType(Extension.ERR, write(value.value))
            case tuple() | Set():
                return list(value)
            case _ if (plain := _plain(value)) is not None:
                return plain(value)
        kind = {Stream: Extension.STREAM, Future: Extension.FUTURE}.get(type(value), Extension.OWN)
        return ExtType(kind, add(value).to_bytes(4))

    def write(value: Any) -> bytes:
        packed: bytes = packb(value, default=other, strict_types=True)
        return packed

    try:
        return write(value)
    except OverflowError as error:
        raise ValueError(str(error)) from None


def _plain(value: Any) -> type | None:
    """Returns the type that a value's is made of: an enumeration's, say, has a text's or a number's."""
    return next((kind for kind in (str, bytes, int, float, list, dict) if isinstance(value, kind)), None)
