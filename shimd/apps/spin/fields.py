"""Reading a manifest: tables that know where they stand, so that a mistake is one sentence with file and field."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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

    def table(self, name: str, *, optional: bool = False) -> "ManifestTable":
        """:raises InvalidSetting: it is none, or not there (and not ``optional``)"""
        value = self.values.get(name, {} if optional else None)
        if not isinstance(value, dict):
            raise self.wrong(name, "is missing, or not a table")
        return ManifestTable(self.file, ".".join(part for part in (self.where, name) if part), value)

    def tables(self, name: str) -> list["ManifestTable"]:
        """Returns a list of tables; empty if there is none."""
        prefix = ".".join(part for part in (self.where, name) if part)
        found = []
        for index, value in enumerate(self.list(name)):
            if not isinstance(value, dict):
                raise self.wrong(f"{name}[{index}]", "is not a table")
            found.append(ManifestTable(self.file, f"{prefix}[{index}]", value))
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
