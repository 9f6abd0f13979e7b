"""Components that are composed with others: ``dependencies`` of a component, and of a trigger (its middleware).

https://spinframework.dev/writing-apps#using-component-dependencies; the rules are those of Spin's crates ``manifest``
(``schema/v2``, ``normalize``), ``loader`` and ``compose``. What matches which import is known when they are composed:
``native/componentize/src/compose.rs``.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

from shimd.apps.spin import inherited, keys
from shimd.apps.spin.fields import ManifestTable
from shimd.apps.spin.model import Component, Dependency
from shimd.engine import Composed, InvalidSetting, Layer
from shimd.engines import componentize
from shimd.engines.composition import MISSING, Plan, PlannedDependency, PlannedMiddleware

_WORD = "(?:[a-z][a-z0-9]*|[A-Z][A-Z0-9]*)"
_LABEL = f"{_WORD}(?:-{_WORD})*"
_PLAIN = re.compile(_LABEL + r"\Z")
_VERSION = r"(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?"
_PACKAGE = re.compile(f"({_LABEL}:{_LABEL})(?:/({_LABEL}))?(?:@({_VERSION}))?" + r"\Z")
_FROM_REGISTRY = "is in a registry, and shimd asks none: give its file ({ path }), or push the application composed"
#: A dependency of a component may have none of these: they would not hold.
_OWN = (
    "ai_models",
    "allowed_outbound_hosts",
    "dependencies",
    "environment",
    "files",
    "key_value_stores",
    "sqlite_databases",
    "variables",
)
SourceT = TypeVar("SourceT")


@dataclass(frozen=True)
class PackageName:
    """What a dependency is for: ``a:b``, ``a:b/c``, each of any version or of one."""

    package: str
    interface: str | None
    version: str | None

    @classmethod
    def parse(cls, text: str) -> "PackageName | None":
        found = _PACKAGE.match(text)
        return cls(*found.groups()) if found else None

    def overlaps(self, other: "PackageName") -> bool:
        """Returns whether both may be for one import."""
        if self.package != other.package:
            return False
        if self.version and other.version and _track(self.version) != _track(other.version):
            return False
        return not (self.interface and other.interface and self.interface != other.interface)


def _track(version: str) -> str:
    """Returns what compatible versions have in common (semver.org)."""
    plain = version.partition("+")[0]
    if "-" in plain:
        return plain
    major, minor, _patch = plain.split(".")
    if major != "0":
        return major
    return f"0.{minor}" if minor != "0" else plain


def of_component(table: ManifestTable) -> tuple[Dependency, ...]:
    """Read a component's dependencies in a ``spin.toml``; what they take from other components is not known by then.

    :raises InvalidSetting: what is wrong, and where
    """
    declared = table.table("dependencies", optional=True)
    found = tuple(_dependency(declared, name) for name in declared.values)
    _check_disjoint(declared, found)
    if table.values.get("dependencies_inherit_configuration") is None:
        return found
    for name, value in declared.values.items():
        if isinstance(value, dict) and value.get("inherit_configuration") is not None:
            where = declared.inner(name, value)
            raise where.wrong("inherit_configuration", "and dependencies_inherit_configuration exclude each other")
    if not table.flag("dependencies_inherit_configuration"):
        return found
    return tuple(replace(one, inherits=inherited.ALL) for one in found)


def of_trigger(table: ManifestTable) -> tuple[Dependency, ...]:
    """Read the middleware of a trigger in a ``spin.toml``, the outermost first.

    :raises InvalidSetting: what is wrong, and where
    """
    declared = table.table("dependencies", optional=True).of(keys.TRIGGER_DEPENDENCIES)
    found = [_declared(one.of(keys.MIDDLEWARE), "") for one in declared.tables("middleware")]
    if found and table.values.get("static_response") is not None:
        raise declared.wrong("middleware", "would have nothing to call: a static_response is no component")
    return tuple(found)


def _dependency(declared: ManifestTable, name: str) -> Dependency:
    package = _check_name(declared, name)
    if isinstance(declared.values[name], str):
        raise declared.wrong(name, _FROM_REGISTRY)
    table = declared.table(name).of(keys.DEPENDENCY)
    _check_export(table, package)
    return _declared(table, name)


def _check_name(declared: ManifestTable, name: str) -> PackageName | None:
    package = PackageName.parse(name)
    if package is None and not _PLAIN.match(name):
        raise declared.wrong(name, "is no name of an import: a-name, or a:package[/interface][@version]")
    return package


def _check_export(table: ManifestTable, package: PackageName | None) -> None:
    if package is not None and package.interface is None and table.values.get("export") is not None:
        raise table.wrong("export", "is one interface, and the dependency is for all of a package: name the one there")


def _check_disjoint(declared: ManifestTable, found: Sequence[Dependency]) -> None:
    names = [(one.name, package) for one in found if (package := PackageName.parse(one.name)) is not None]
    for (name, one), (other_name, other) in combinations(names, 2):
        if one.overlaps(other):
            raise declared.wrong(other_name, f"and {name} may be for the same import: leave one out")


def _declared(table: ManifestTable, name: str) -> Dependency:
    there = [key for key in ("path", "component") if table.values.get(key) is not None]
    if len(there) != 1:
        raise table.wrong("", "has to have either a path or a component")
    return Dependency(
        where=table.place(),
        name=name,
        source=table.text(there[0]),
        is_id=there == ["component"],
        export=table.text("export") if table.values.get("export") is not None else None,
        inherits=_inherits(table),
    )


def _inherits(table: ManifestTable) -> tuple[str, ...]:
    value = table.values.get("inherit_configuration")
    if value is None or isinstance(value, bool):
        return inherited.ALL if value else ()
    return _known(table, "inherit_configuration")


def _known(table: ManifestTable, name: str) -> tuple[str, ...]:
    chosen = table.strings(name)
    for one in chosen:
        if one not in inherited.KEYS:
            raise table.wrong(name, f"names {one}, and there are {', '.join(inherited.ALL)}")
    return chosen


def of_locked(table: ManifestTable, source: Callable[[ManifestTable], Layer]) -> tuple[Dependency, ...]:
    """Read the dependencies of a component of a locked application.

    :raises InvalidSetting: what is wrong, and where
    """
    declared = table.table("dependencies", optional=True)
    found = []
    for name in declared.values:
        one = declared.table(name)
        _check_export(one, _check_name(declared, name))
        found.append(_locked(one, name, source))
    return tuple(found)


def of_locked_trigger(table: ManifestTable, source: Callable[[ManifestTable], Layer]) -> tuple[Dependency, ...]:
    """Read the middleware of a component of a locked application, where Spin writes what its trigger has.

    :raises InvalidSetting: what is wrong, and where
    """
    declared = table.table("trigger_dependencies", optional=True).of(keys.TRIGGER_DEPENDENCIES)
    found = tuple(_locked(one, "", source) for one in declared.tables("middleware"))
    kind = table.table("metadata", optional=True).values.get("resolve-trigger-dependencies-using", "http")
    if found and kind != "http":
        raise declared.wrong("middleware", f"is for a {kind} trigger, and only those of http have it")
    return found


def _locked(table: ManifestTable, name: str, source: Callable[[ManifestTable], Layer]) -> Dependency:
    origin = table.of(keys.LOCKED_DEPENDENCY).table("source")
    if origin.values.get("digest") is None and origin.values.get("inline") is None:
        raise origin.wrong("", "is no layer of the image: push the application composed, as spin registry push does")
    return Dependency(
        where=table.place(),
        name=name,
        source=source(origin),
        export=table.text("export") if table.values.get("export") is not None else None,
        inherits=_locked_inherits(table),
    )


def _locked_inherits(table: ManifestTable) -> tuple[str, ...]:
    value = table.values.get("inherit")
    if value == "All":
        return inherited.ALL
    if isinstance(value, dict) and list(value) == ["Some"]:
        return _known(table.table("inherit"), "Some")
    if value is not None:
        raise table.wrong("inherit", 'is neither "All" nor {"Some": [...]}')
    return ()


def settled(components: Mapping[str, Component]) -> dict[str, Component]:
    """Returns the components of a ``spin.toml``, with the paths of what they take from one another.

    :raises InvalidSetting: there is no such component, or it has a configuration of its own
    """

    def settle(dependencies: Iterable[Dependency]) -> tuple[Dependency, ...]:
        return tuple(_settled(one, components) if one.is_id else one for one in dependencies)

    return {
        id: replace(one, dependencies=settle(one.dependencies), middleware=settle(one.middleware))
        for id, one in components.items()
    }


def _settled(one: Dependency, components: Mapping[str, Component]) -> Dependency:
    other = components.get(str(one.source))
    if other is None:
        raise InvalidSetting(f"{one.where}.component names {one.source!r}, which is no component")
    if own := [name for name in _OWN if getattr(other, name)]:
        what = f"{one.source} has {', '.join(own)}, which would not hold where it is composed with another"
        raise InvalidSetting(f"{one.where}.component: {what}")
    return replace(one, source=other.source, is_id=False)


def program(component: Component, own: Callable[[str | Layer], SourceT]) -> SourceT | Composed[SourceT]:
    """Returns what a component is compiled of.

    :param own: what the engine is to give for a source
    """
    if not component.composed:
        return own(component.source)
    dependencies, middleware = component.dependencies, component.middleware
    plan = Plan(
        [
            PlannedDependency(_field(one, component), one.name, one.export, inherited.denied(one.inherits))
            for one in dependencies
        ],
        [PlannedMiddleware(_field(one, component), inherited.denied(one.inherits)) for one in middleware],
    )
    sources = [component.source, *(one.source for one in (*dependencies, *middleware))]
    return Composed(component.where, plan.json(), [own(source) for source in sources])


def _field(one: Dependency, component: Component) -> str:
    """Returns where a dependency is declared, as short as it can be said after its component."""
    file = component.where.partition(": ")[0]
    return one.where.removeprefix(f"{component.where}.").removeprefix(f"{file}: ")


def check(components: Iterable[Component]) -> None:
    """:raises InvalidSetting: one is to be composed, and nothing here can"""
    for component in components:
        if component.composed and not componentize.installed():
            raise InvalidSetting(f"{(*component.dependencies, *component.middleware)[0].where}: {MISSING}")
