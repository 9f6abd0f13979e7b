"""``spin.toml``, version 2 (https://spinframework.dev/manifest-reference). A mistake is one sentence with its field."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shimd.apps.spin.routes import Route
from shimd.engines.base import InvalidSetting

PATH = "/spin.toml"
_TRIGGERS = ("http",)
_ID = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*\Z")
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*\Z")


@dataclass(frozen=True)
class Variable:
    default: str | None
    """``None``: it is required."""


@dataclass(frozen=True)
class Mount:
    """Files that a component sees: those that a glob finds, or one directory (or file) at a place of its own."""

    source: str
    destination: str | None = None


@dataclass(frozen=True)
class Component:
    id: str
    source: str
    """Of its module, relative to the manifest."""
    environment: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    """Templates."""
    allowed_outbound_hosts: tuple[str, ...] = ()
    key_value_stores: tuple[str, ...] = ()
    sqlite_databases: tuple[str, ...] = ()
    files: tuple[Mount, ...] = ()
    exclude_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Application:
    name: str
    version: str
    variables: Mapping[str, Variable]
    components: Mapping[str, Component]
    routes: tuple[Route, ...]

    def retaining(self, ids: str) -> "Application":
        """Only those components (``SPIN_COMPONENTS_TO_RETAIN``, comma-separated; empty: all).

        :raises InvalidSetting: there is none of a name
        """
        chosen = [id.strip() for id in ids.split(",") if id.strip()]
        for id in chosen:
            if id not in self.components:
                raise InvalidSetting(f"SPIN_COMPONENTS_TO_RETAIN names {id}, which {PATH} has not")
        if not chosen:
            return self
        kept = {id: component for id, component in self.components.items() if id in chosen}
        routes = tuple(route for route in self.routes if route.component in kept)
        return Application(self.name, self.version, self.variables, kept, routes)


def parse(text: bytes) -> Application:
    """:raises InvalidSetting: what is wrong, and where"""
    try:
        table = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _wrong("", f"is not TOML: {error}") from None
    if table.get("spin_manifest_version") != 2:
        raise _wrong("spin_manifest_version", "must be 2 (spin doctor rewrites a manifest of version 1)")
    application = _table(table, "application", "")
    variables = {name: _variable(name, value) for name, value in _table(table, "variables", "", {}).items()}
    components = {id: _component(id, value, variables) for id, value in _table(table, "component", "", {}).items()}
    routes = _routes(_table(table, "trigger", ""), components)
    return Application(
        name=_text(application, "name", "application"),
        version=_text(application, "version", "application", "0.0.0"),
        variables=variables,
        components=components,
        routes=routes,
    )


def _routes(triggers: dict[str, Any], components: dict[str, Component]) -> tuple[Route, ...]:
    for kind in triggers:
        if kind not in _TRIGGERS:
            raise _wrong(f"trigger.{kind}", "is a trigger that shimd does not run (it runs http)")
    routes = [
        _route(f"trigger.http[{index}]", value, components)
        for index, value in enumerate(_list(triggers, "http", "trigger"))
    ]
    seen: dict[str, str] = {}
    for route in routes:
        if route.path is None:
            continue
        if route.path in seen:
            raise _wrong("trigger.http", f"gives the route {route.path} to {seen[route.path]} and {route.component}")
        seen[route.path] = route.component
    if not routes:
        raise _wrong("trigger.http", "is missing: no component would ever run")
    return tuple(routes)


def _route(where: str, value: Any, components: dict[str, Component]) -> Route:
    if not isinstance(value, dict):
        raise _wrong(where, "is not a table")
    component = value.get("component")
    if isinstance(component, dict):  # defined in place
        id = f"inline-{where}"
        components[id] = _component(id, component, {}, named=False)
        component = id
    if component not in components:
        raise _wrong(f"{where}.component", f"names {component!r}, which is no component")
    path = value.get("route")
    if path == {"private": True}:
        return Route(None, component)
    if not isinstance(path, str) or not path.startswith("/"):
        raise _wrong(f"{where}.route", 'must be a path that starts with "/", or { private = true }')
    if "..." in path and not path.endswith("/..."):
        raise _wrong(f"{where}.route", f'"{path}": a wildcard (/...) can only come last')
    return Route(path, component)


def _variable(name: str, value: Any) -> Variable:
    where = f"variables.{name}"
    if not _NAME.match(name):
        raise _wrong(where, "is not a name of lowercase letters, digits and single underscores")
    if not isinstance(value, dict):
        raise _wrong(where, "is not a table")
    default, required = value.get("default"), value.get("required", False)
    if default is not None and not isinstance(default, str):
        raise _wrong(f"{where}.default", "is not a string")
    if default is None and not required:
        raise _wrong(where, "has no default, and is not required")
    return Variable(default)


def _component(id: str, value: Any, variables: Mapping[str, Variable], *, named: bool = True) -> Component:
    where = f"component.{id}"
    if named and not _ID.match(id):
        raise _wrong(where, "is not a name of letters, digits, hyphens and underscores")
    if not isinstance(value, dict):
        raise _wrong(where, "is not a table")
    source = value.get("source")
    if isinstance(source, dict):
        raise _wrong(f"{where}.source", "is to be fetched from elsewhere; an image has to bring it along as a file")
    if not isinstance(source, str):
        raise _wrong(f"{where}.source", "is missing, or not a path")
    return Component(
        id=id,
        source=source,
        environment=_texts(value, "environment", where),
        variables=_texts(value, "variables", where),
        allowed_outbound_hosts=_strings(value, "allowed_outbound_hosts", where),
        key_value_stores=_strings(value, "key_value_stores", where),
        sqlite_databases=_strings(value, "sqlite_databases", where),
        files=tuple(_mount(f"{where}.files", item) for item in _list(value, "files", where)),
        exclude_files=_strings(value, "exclude_files", where),
    )


def _mount(where: str, value: Any) -> Mount:
    match value:
        case str():
            return Mount(value)
        case {"source": str(source), "destination": str(destination)}:
            return Mount(source, destination)
    raise _wrong(where, "holds something that is neither a pattern nor { source, destination }")


def _table(table: dict[str, Any], name: str, where: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
    value = table.get(name, default)
    if not isinstance(value, dict):
        raise _wrong(f"{where}.{name}".lstrip("."), "is missing, or not a table")
    return value


def _list(table: dict[str, Any], name: str, where: str) -> list[Any]:
    value = table.get(name, [])
    if not isinstance(value, list):
        raise _wrong(f"{where}.{name}", "is not a list")
    return value


def _strings(table: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    values = _list(table, name, where)
    if not all(isinstance(value, str) for value in values):
        raise _wrong(f"{where}.{name}", "holds something that is not a string")
    return tuple(values)


def _texts(table: dict[str, Any], name: str, where: str) -> dict[str, str]:
    values = _table(table, name, where, {})
    for key, value in values.items():
        if not isinstance(value, str):
            raise _wrong(f"{where}.{name}.{key}", "is not a string")
    return values


def _text(table: dict[str, Any], name: str, where: str, default: str | None = None) -> str:
    value = table.get(name, default)
    if not isinstance(value, str):
        raise _wrong(f"{where}.{name}", "is missing, or not a string")
    return value


def _wrong(where: str, what: str) -> InvalidSetting:
    return InvalidSetting(f"{PATH}: {where} {what}" if where else f"{PATH} {what}")
