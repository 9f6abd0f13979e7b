"""``/slightfile.toml``, specversion 0.1 and 0.2: an application's capabilities, and the backend of each."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from shimd.apps.slight import resources
from shimd.engine import InvalidSetting

PATH = "/slightfile.toml"
#: The name of a capability that answers to any.
ANY = "*"


@dataclass(frozen=True)
class Capability:
    kind: str
    """``keyvalue``, ``messaging``, …"""
    backend: str
    """``filesystem``, ``redis``, …; empty for http and its client."""
    name: str
    """The name by which the guest opens it, or :data:`ANY`."""
    where: str
    """The field of the file that describes it, for error messages: ``capability[0]``."""
    configs: Mapping[str, str] = field(default_factory=dict)

    @property
    def resource(self) -> str:
        return f"{self.kind}.{self.backend}" if self.backend else self.kind


@dataclass(frozen=True)
class Slightfile:
    capabilities: Sequence[Capability]
    secret_store: str | None = None
    """The store of all configs, in specversion 0.1."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """``secret_settings``: encrypted, by name."""

    @property
    def serves(self) -> bool:
        return any(capability.kind == "http" for capability in self.capabilities)

    def find(self, kind: str, name: str) -> Capability | None:
        """Returns the capability that a guest opens by a name: the one of that name, or else the one of any."""
        ours = [capability for capability in self.capabilities if capability.kind == kind]
        named = (capability for capability in ours if capability.name == name)
        return next(named, next((capability for capability in ours if capability.name == ANY), None))


def parse(text: bytes) -> Slightfile:
    """:raises InvalidSetting: what is wrong, and where"""
    try:
        table = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSetting(f"{PATH} is not TOML: {error}") from None
    version = table.get("specversion")
    if version not in ("0.1", "0.2"):
        wrong(
            "specversion",
            'must be "0.1" or "0.2"' if version is None else f'is {version!r}, and must be "0.1" or "0.2"',
        )
    capabilities = [_capability(version, f"capability[{index}]", item) for index, item in _tables(table, "capability")]
    _refuse_clashes(capabilities)
    return Slightfile(capabilities, _secret_store(version, table), _secrets(table))


def wrong(where: str, what: str) -> NoReturn:
    raise InvalidSetting(f"{PATH}: {where} {what}")


def _tables(table: dict[str, Any], name: str) -> list[tuple[int, dict[str, Any]]]:
    items = table.get(name, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        wrong(name, f"is not a list of tables ([[{name}]])")
    return list(enumerate(items))


def _capability(version: str, where: str, table: dict[str, Any]) -> Capability:
    if version == "0.1":
        if "resource" in table:
            wrong(f"{where}.resource", 'is of specversion 0.2, and specversion is "0.1": there, name says the resource')
        kind, backend = _resource(f"{where}.name", _text(where, table, "name"))
        return Capability(kind, backend, ANY, where)
    if "resource" not in table:
        wrong(f"{where}.resource", "is missing")
    kind, backend = _resource(f"{where}.resource", _text(where, table, "resource"))
    configs = table.get("configs", {})
    if not isinstance(configs, dict) or not all(isinstance(value, str) for value in configs.values()):
        wrong(f"{where}.configs", "is not a table of strings")
    return Capability(kind, backend, _text(where, table, "name"), where, configs)


def _text(where: str, table: dict[str, Any], name: str) -> str:
    value = table.get(name)
    if not isinstance(value, str) or not value:
        wrong(f"{where}.{name}", "is missing" if value is None else "is not a string with something in it")
    return value


def _resource(where: str, name: str) -> tuple[str, str]:
    name = resources.OLD_NAMES.get(name, name)
    if name in resources.CLOUD:
        wrong(where, f"is {name}, {resources.CLOUD[name]}")
    if name not in resources.CONFIGS:
        wrong(where, f"is {name}, which is none of {', '.join(sorted(resources.CONFIGS))}")
    kind, _, backend = name.partition(".")
    return kind, backend


def _refuse_clashes(capabilities: Sequence[Capability]) -> None:
    """Refuse two capabilities of a kind that answer to one name; :data:`ANY` answers to all."""
    seen: dict[tuple[str, str], str] = {}
    for capability in capabilities:
        kind, name = capability.kind, capability.name
        before = [
            where for (other, named), where in seen.items() if other == kind and (ANY in (named, name) or named == name)
        ]
        if before:
            wrong(f"{capability.where}.name", f"is {name}, and {before[0]} has that name already for {kind}")
        seen[kind, name] = capability.where


def _secret_store(version: str, table: dict[str, Any]) -> str | None:
    store = table.get("secret_store")
    if store is None or version != "0.1":
        return None
    known = ("configs.envvars", "configs.usersecrets", "configs.local")
    if store in resources.CLOUD:
        wrong("secret_store", f"is {store}, {resources.CLOUD[store]}")
    if store not in known:
        wrong("secret_store", f"is {store!r}, which is none of {', '.join(known)}")
    return str(store).partition(".")[2]


def _secrets(table: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for index, item in _tables(table, "secret_settings"):
        where = f"secret_settings[{index}]"
        found.setdefault(_text(where, item, "name"), _text(where, item, "value"))
    return found
