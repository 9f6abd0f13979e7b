"""Values of the component model as MessagePack, and as Python has them (:mod:`shimd.component.values`)."""

from collections.abc import Callable, Set
from typing import Any

from msgpack import ExtType, packb, unpackb

from shimd.component.objects import Objects
from shimd.component.results import Case, Err, Ok

#: Types of MessagePack's extensions, as ``native/wasmtime/src/bridge/values.rs`` has them.
_TUPLE, _CASE, _OK, _ERR, _FLAGS, _OWN, _BORROW = range(1, 8)


def unpack(data: bytes | memoryview, objects: Objects) -> Any:
    """Returns what a guest has said.

    :param objects: the guest's; those that are handed over leave it
    :raises ValueError: it is none of ours
    """

    def extension(kind: int, inner: bytes) -> Any:
        match kind:
            case 1:  # _TUPLE
                return tuple(read(inner))
            case 2:  # _CASE
                return Case(*read(inner))
            case 3:  # _OK
                return Ok(read(inner))
            case 4:  # _ERR
                return Err(read(inner))
            case 5:  # _FLAGS
                return frozenset(read(inner))
            case 6:  # _OWN
                return objects.remove(int.from_bytes(inner))
            case 7:  # _BORROW
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
                return ExtType(_CASE, write([value.tag, value.payload]))
            case Ok():
                return ExtType(_OK, write(value.value))
            case Err():
                return ExtType(_ERR, write(value.value))
            case tuple() | Set():
                return list(value)
            case _ if (plain := _plain(value)) is not None:
                return plain(value)
        return ExtType(_OWN, add(value).to_bytes(4))

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
