"""Messages as bytes: each is a frozen dataclass, and on the wire a JSON object with its class's name as ``type``."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

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
    """Decodes the messages of one union."""

    def __init__(self, *types: type[M], checked: bool = False) -> None:
        """
        :param checked: whether another version may have written them, so that fields' types are looked at, too
        """
        self._checked = checked
        self._types = {one.__name__: (one, _items(one)) for one in types}

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
            message = made(**values)
            if self._checked:
                _check(message, made)
            return message
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise NotAMessage(f"{data[:80]!r} is no message: {error}") from None


def _items(message: type) -> dict[str, Callable[[Any], object]]:
    """Makers of the items of its fields, for those that are no plain JSON."""
    assert is_dataclass(message)
    return {one.name: _maker(one.metadata[ITEMS]) for one in fields(message) if ITEMS in one.metadata}


def _maker(item: type) -> Callable[[Any], object]:
    return (lambda value: item(**value)) if is_dataclass(item) else (lambda value: item(*value))


def _check(value: Any, kind: Any) -> None:
    """:raises TypeError: it is not of that type, as far as JSON tells one from another"""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        _check(value, kind=next(one for one in arguments if (one is type(None)) == (value is None)))
    elif origin in (Sequence, list):
        _expect(value, (list, tuple))
        for item in value:
            _check(item, arguments[0])
    elif origin in (Mapping, dict):
        _expect(value, dict)
    elif is_dataclass(kind):
        _expect(value, kind)  # type: ignore[arg-type]
        for name, hint in get_type_hints(kind).items():
            _check(getattr(value, name), hint)
    elif isinstance(kind, type):
        _expect(value, kind)


def _expect(value: Any, kind: type | tuple[type, ...]) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise TypeError(f"{value!r} is of another type")
