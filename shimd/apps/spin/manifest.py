"""``spin.toml``, version 2 (https://spinframework.dev/manifest-reference). A mistake is one sentence with its field."""

import re
from collections import Counter
from dataclasses import replace
from itertools import count
from typing import Any

from shimd.apps.spin import dependencies, keys, triggers
from shimd.apps.spin.allowed import of_http_hosts
from shimd.apps.spin.fields import ManifestTable, toml
from shimd.apps.spin.model import VARIABLE_NAME, Application, Component, FileMount, Variable

PATH = "/spin.toml"
"""In a container."""
_ID = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*\Z")


def parse(text: bytes, file: str = PATH) -> Application:
    """:param file: its path, for messages

    :raises InvalidSetting: what is wrong, and where"""
    table = toml(file, text)
    if table.values.get("spin_manifest_version") != 2:
        raise table.wrong("spin_manifest_version", "must be 2 (spin doctor rewrites a manifest of version 1)")
    application = table.of(keys.MANIFEST).table("application").of(keys.APPLICATION)
    variables = table.table("variables", optional=True)
    described = table.table("component", optional=True)
    components = {id: _component(id, described.table(id)) for id in described.values}
    kinds = table.table("trigger", optional=True)
    declared = {kind: [_declared(kind, one, components) for one in kinds.tables(kind)] for kind in kinds.values}
    components = dependencies.settled(_behind_middleware(declared, components))
    return Application(
        file=file,
        name=application.text("name"),
        version=application.text("version", "0.0.0"),
        variables={name: _variable(variables, name) for name in variables.values},
        triggers=triggers.make(declared, application.table("trigger", optional=True), components),
        components=components,
    )


def _declared(kind: str, table: ManifestTable, components: dict[str, Component]) -> triggers.Declared:
    triggers.checked(kind, table)
    if isinstance(table.values.get("component"), dict) and "static_response" not in table.values:  # defined in place
        id = f"inline-{table.where}"
        components[id] = _component(id, table.table("component"), named=False)
        return table, id
    return table, triggers.component_of(kind, table)


def _behind_middleware(
    declared: dict[str, list[triggers.Declared]], components: dict[str, Component]
) -> dict[str, Component]:
    """Returns the components, each with the middleware of the trigger that calls it. One that several call is there
    once more for each that has some, by a name like Spin's, and these triggers are changed to call that."""
    calls = Counter(id for ones in declared.values() for _table, id in ones)
    names, found = _trigger_names(declared), dict(components)
    for index, (table, id) in enumerate(declared.get("http", ())):
        middleware = dependencies.of_trigger(table)
        if not middleware or id not in components:
            continue
        own = id if calls[id] == 1 else f"{id}-for-{names['http', index]}"
        if own != id and own in found:
            raise table.wrong("id", f"makes {own} of its component with its middleware, and that is another's name")
        found[own] = replace(components[id], id=own, middleware=middleware)
        declared["http"][index] = table, own
    return found


def _trigger_names(declared: dict[str, list[triggers.Declared]]) -> dict[tuple[str, int], str]:
    """Returns the ids of triggers, by their kinds and places; those that have none get one, as Spin gives it."""
    all = [(kind, index, table) for kind, ones in declared.items() for index, (table, _id) in enumerate(ones)]
    found = {(kind, index): table.text("id") for kind, index, table in all if table.values.get("id")}
    taken = set(found.values())
    for kind, index, table in all:
        if (kind, index) in found:
            continue
        name = f"{table.values.get('component')}-{kind}-trigger"
        if name in taken or not isinstance(table.values.get("component"), str):
            name = next(one for number in count(1) if (one := f"{kind}-trigger{number}") not in taken)
        found[kind, index] = name
        taken.add(name)
    return found


def _variable(variables: ManifestTable, name: str) -> Variable:
    if not VARIABLE_NAME.match(name):
        raise variables.wrong(name, "is not a name of lowercase letters, digits and single underscores")
    table = variables.table(name).of(keys.VARIABLE)
    default, required = table.values.get("default"), table.flag("required")
    if default is not None and not isinstance(default, str):
        raise table.wrong("default", "is not a string")
    if default is None and not required:
        raise table.wrong("", "has no default, and is not required")
    if default is not None and required:
        raise table.wrong("", "has a default, and is required: it is one of both")
    return Variable(default)


def _component(id: str, table: ManifestTable, *, named: bool = True) -> Component:
    if named and not _ID.match(id):
        raise table.wrong("", "is not a name of letters, digits, hyphens and underscores")
    source = table.of(keys.COMPONENT).values.get("source")
    if isinstance(source, dict):
        raise table.wrong("source", "is to be fetched from elsewhere; an image has to bring it along as a file")
    if not isinstance(source, str):
        raise table.wrong("source", "is missing, or not a path")
    return Component(
        id=id,
        where=table.place(),
        source=source,
        environment=table.texts("environment"),
        variables=table.texts("variables"),
        allowed_outbound_hosts=(*table.strings("allowed_outbound_hosts"), *of_http_hosts(table)),
        key_value_stores=table.strings("key_value_stores"),
        sqlite_databases=table.strings("sqlite_databases"),
        ai_models=table.strings("ai_models"),
        files=tuple(_mount(table, index, item) for index, item in enumerate(table.list("files"))),
        exclude_files=table.strings("exclude_files"),
        dependencies=dependencies.of_component(table),
    )


def _mount(table: ManifestTable, index: int, value: Any) -> FileMount:
    if isinstance(value, str):
        return FileMount(value)
    if not isinstance(value, dict):
        raise table.wrong(f"files[{index}]", "is neither a pattern nor { source, destination }")
    mount = table.inner(f"files[{index}]", value).of(keys.FILES)
    return FileMount(mount.text("source"), mount.text("destination"))
