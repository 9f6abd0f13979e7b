"""Messages as bytes: each is a frozen dataclass, and on the wire a JSON object with its class's name as ``type``."""

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, Generic, TypeVar, cast

M = TypeVar("M")
_TYPE = "type"
#: Of a field: the class of its items, where they are no plain JSON (a dataclass, or a NamedTuple).
ITEMS = "items"


class NotAMessage(ValueError):
    """The bytes are no message that is expected here."""


def _plain(value: object) -> dict[str, Any]:
    """A dataclass within a message."""
    return vars(value)


_json = json.JSONEncoder(separators=(",", ":"), default=_plain).encode


def encode(message: object) -> bytes:
    """A message as one packet, or as a file in memory."""
    return _json({_TYPE: type(message).__name__, **vars(message)}).encode()


class Decoder(Generic[M]):
    """Decodes the messages of one union.

    :param lenient: whether fields that are not known, of a later version, are ignored
    """

    def __init__(self, *types: type[M], lenient: bool = False) -> None:
        self._lenient = lenient
        self._types = {one.__name__: (self._maker(one), self._items(one)) for one in types}

    def __call__(self, data: bytes) -> M:
        """
        :raises NotAMessage: the data is not one of the union's
        """
        try:
            values = json.loads(data)
            made, items = self._types[values.pop(_TYPE)]
            for name, item in items.items():
                if name in values:
                    values[name] = [item(one) for one in values[name]]
            return cast(M, made(values))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotAMessage(f"{data[:80]!r} is no message: {error}") from None

    def _items(self, message: type) -> dict[str, Callable[[Any], object]]:
        """Makers of the items of its fields, for those that are no plain JSON."""
        assert is_dataclass(message)
        return {one.name: self._maker(one.metadata[ITEMS]) for one in fields(message) if ITEMS in one.metadata}

    def _maker(self, item: type) -> Callable[[Any], object]:
        if not is_dataclass(item):
            return lambda value: item(*value)
        if not self._lenient:
            return lambda value: item(**value)
        known = {one.name for one in fields(item)}
        return lambda value: item(**{name: one for name, one in value.items() if name in known})
