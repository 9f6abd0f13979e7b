"""Reading a manifest: tables that know where they stand, so that a mistake is one sentence with file and field."""

import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from shimd.apps.spin.keys import Keys
from shimd.engine import InvalidSetting


@dataclass(frozen=True)
class ManifestTable:
    """A table of a TOML file, or an object of a JSON one."""

    file: str
    where: str
    """The name of the table in the file; empty for the whole."""
    values: Mapping[str, Any]

    def place(self, name: str = "") -> str:
        """Returns a field's name for messages: the file, and the path in it."""
        field = ".".join(part for part in (self.where, name) if part)
        return f"{self.file}: {field}" if field else self.file

    def wrong(self, name: str, what: str) -> InvalidSetting:
        return InvalidSetting(f"{self.place(name)} {what}")

    def of(self, keys: Keys) -> "ManifestTable":
        """Returns this table, which has no other keys.

        :raises InvalidSetting: it has one that nobody knows, or that shimd refuses
        """
        for name in self.values:
            if name in keys.refused:
                if not _is_empty(self.values[name]):
                    raise self.wrong(name, keys.refused[name])
            elif name not in keys.applied and name not in keys.idle:
                raise self.unknown(name, keys.all)
        return self

    def unknown(self, name: str, known: Collection[str]) -> InvalidSetting:
        """Returns what is wrong with a key that is none of those."""
        from difflib import get_close_matches

        meant = get_close_matches(name, known, n=1)
        return self.wrong(name, f"is unknown; {meant[0]} is probably meant" if meant else _instead(known))

    def table(self, name: str, *, optional: bool = False) -> "ManifestTable":
        """:raises InvalidSetting: it is none, or not there (and not ``optional``: then JSON's null is none, too)"""
        value = self.values.get(name)
        if value is None and optional:
            value = {}
        if not isinstance(value, dict):
            raise self.wrong(name, "is missing, or not a table")
        return self.inner(name, value)

    def inner(self, name: str, values: Mapping[str, Any]) -> "ManifestTable":
        """Returns a table that stands in this one."""
        return ManifestTable(self.file, ".".join(part for part in (self.where, name) if part), values)

    def tables(self, name: str) -> list["ManifestTable"]:
        """Returns a list of tables; empty if there is none."""
        found = []
        for index, value in enumerate(self.list(name)):
            if not isinstance(value, dict):
                raise self.wrong(f"{name}[{index}]", "is not a table")
            found.append(self.inner(f"{name}[{index}]", value))
        return found

    def list(self, name: str) -> list[Any]:
        value = self.values.get(name, [])
        if not isinstance(value, list):
            raise self.wrong(name, "is not a list")
        return value

    def strings(self, name: str) -> tuple[str, ...]:
        values = self.list(name)
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(name, "holds something that is not a string")
        return tuple(values)

    def texts(self, name: str) -> dict[str, str]:
        """Returns a table of strings; empty if there is none."""
        values = self.table(name, optional=True).values
        for key, value in values.items():
            if not isinstance(value, str):
                raise self.wrong(f"{name}.{key}", "is not a string")
        return dict(values)

    def text(self, name: str, default: str | None = None) -> str:
        value = self.values.get(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, "is missing, or not a string")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "is neither true nor false")
        return value

    def number(self, name: str) -> int | None:
        """Returns a number that is not negative; ``None``: there is none."""
        value = self.values.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise self.wrong(name, "is no number, or a negative one")
        return value


def _is_empty(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def _instead(known: Collection[str]) -> str:
    return f"is unknown; there {'are' if len(known) > 1 else 'is'} {', '.join(known)}" if known else "is unknown"


def toml(file: str, text: bytes) -> ManifestTable:
    """:raises InvalidSetting: it is not TOML"""
    try:
        return ManifestTable(file, "", tomllib.loads(text.decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSetting(f"{file} is not TOML: {error}") from None


def from_json(file: str, text: bytes) -> ManifestTable:
    """:raises InvalidSetting: it is not a JSON object"""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidSetting(f"{file} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidSetting(f"{file} is not a JSON object")
    return ManifestTable(file, "", value)
