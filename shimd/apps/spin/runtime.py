"""``/runtime-config.toml`` (https://spinframework.dev/dynamic-configuration): where an application keeps its state."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shimd.apps.spin import keyvalue
from shimd.apps.spin.database import Database
from shimd.engines.base import InvalidSetting

PATH = "/runtime-config.toml"
#: Relative to the working directory, which is ``/``.
STATE = Path("/.spin")


class Runtime:
    """The stores, databases and variables that it gives."""

    def __init__(self, text: bytes | None) -> None:
        """:raises InvalidSetting: what is wrong, and where"""
        table = _parsed(text) if text is not None else {}
        default = Database(STATE / "sqlite_key_value.db", keyvalue.TABLE)
        self.stores = {"default": default, **_databases(table, "key_value_store", keyvalue.TABLE)}
        self.databases = {"default": Database(STATE / "sqlite_db.db"), **_databases(table, "sqlite_database")}
        self.uses_redis = False
        self.variables = [*_variables(table, "variables_provider"), *_variables(table, "config_provider")]


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSetting(f"{PATH} is not TOML: {error}") from None


def _databases(table: dict[str, Any], name: str, setup: str = "") -> dict[str, Database]:
    found = {}
    for label, settings in table.get(name, {}).items():
        where = f"{name}.{label}"
        kind = settings.get("type") if isinstance(settings, dict) else None
        if kind != "spin":
            raise InvalidSetting(f'{PATH}: {where}.type is {kind!r}; shimd has "spin", which is SQLite in a file')
        path = settings.get("path", f".spin/{label}.db")
        if not isinstance(path, str):
            raise InvalidSetting(f"{PATH}: {where}.path is not a string")
        found[label] = Database(Path("/", path), setup)
    return found


def _variables(table: dict[str, Any], name: str) -> list[Mapping[str, str]]:
    found: list[Mapping[str, str]] = []
    for index, provider in enumerate(table.get(name, [])):
        kind = provider.get("type") if isinstance(provider, dict) else None
        if kind != "static":
            raise InvalidSetting(
                f'{PATH}: {name}[{index}].type is {kind!r}; shimd has "static" (values in place) and the environment'
            )
        found.append({key: str(value) for key, value in provider.get("values", {}).items()})
    return found
