"""``wasi:http/types.fields``: header fields, in order, names in any case."""

import re
from collections.abc import Iterable
from typing import NoReturn

from shimd.component.results import Case, Err

#: Of the connection, not of the message: a guest has no say in them (as in wasmtime's host).
_FORBIDDEN = frozenset(
    {
        "connection",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    }
)
NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110, 5.6.2: token
_VALUE = re.compile(rb"[\x09\x20-\x7e\x80-\xff]*\Z")  # RFC 9110, 5.5


class Fields:
    """The resource; ``headers`` and ``trailers`` are the same."""

    def __init__(self, entries: Iterable[tuple[str, bytes]] = (), *, immutable: bool = False) -> None:
        self._entries = [(name.lower(), value) for name, value in entries]
        self._immutable = immutable

    @staticmethod
    def from_list(entries: list[tuple[str, bytes]]) -> "Fields":
        fields = Fields()
        for name, value in entries:
            fields.append(name, value)
        return fields

    def get(self, name: str) -> list[bytes]:
        return [value for own, value in self._entries if own == name.lower()]

    def has(self, name: str) -> bool:
        return bool(self.get(name))

    def set(self, name: str, values: list[bytes]) -> None:
        self._check(name, values)
        self.delete(name)
        self._entries += [(name.lower(), value) for value in values]

    def delete(self, name: str) -> None:
        self._check(name, ())
        self._entries = [(own, value) for own, value in self._entries if own != name.lower()]

    def append(self, name: str, value: bytes) -> None:
        self._check(name, [value])
        self._entries.append((name.lower(), value))

    def entries(self) -> list[tuple[str, bytes]]:
        return list(self._entries)

    def clone(self) -> "Fields":
        return Fields(self._entries)

    def frozen(self) -> "Fields":
        """Returns a message's own headers, as those who read them have them: immutable."""
        return Fields(self._entries, immutable=True)

    def _check(self, name: str, values: Iterable[bytes]) -> None:
        if self._immutable:
            _error("immutable")
        if not NAME.match(name) or not all(_VALUE.match(value) for value in values):
            _error("invalid-syntax")
        if name.lower() in _FORBIDDEN:
            _error("forbidden")


def _error(tag: str) -> NoReturn:
    raise Err(Case(tag))
