"""A locked application: what ``spin registry push`` makes of a ``spin.toml``, as a layer of an image.

Its other layers are the components' modules, and their files: one each (``…+data``), or all in archives; what is small
stands in the manifest itself. (Spin's ``crates/locked-app`` and ``crates/oci``, version 3.)
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from functools import partial

from shimd.apps.spin import dependencies, keys, triggers
from shimd.apps.spin.allowed import of_http_hosts
from shimd.apps.spin.fields import ManifestTable, from_json
from shimd.apps.spin.model import Application, Component, Triggers, Variable
from shimd.apps.spin.routes import SpinRoute
from shimd.engine import Content, Image, Layer

#: The layer that holds it.
MEDIA_TYPE = "application/vnd.fermyon.spin.application.v1+config"
FILE = "the image's locked application"
#: Requirements of an application that shimd meets.
_MET = frozenset({"local_service_chaining", "middleware"})
_WASM = "application/wasm"
#: A component alone, as ``wkg`` pushes it.
PACKAGE = _WASM


def find(image: Image) -> Application | None:
    """Returns the application in an image's layers; ``None``: there is none.

    :raises InvalidSetting: it is wrong; the message names the field
    """
    for layer in image.layers:
        if layer.media_type == MEDIA_TYPE:
            return parse(image.read(layer), image.layers)
    if [layer.media_type for layer in image.layers] == [PACKAGE]:
        return _alone(image.layers[0])
    return None


def parse(text: bytes, layers: Sequence[Layer]) -> Application:
    """:raises InvalidSetting: what is wrong, and where"""
    table = from_json(FILE, text)
    if table.values.get("spin_lock_version") not in (0, 1):
        raise table.wrong("spin_lock_version", "is neither 0 nor 1")
    _check_understood(table.of(keys.LOCKED))
    metadata = table.table("metadata", optional=True).of(keys.LOCKED_METADATA)
    known = {layer.digest: layer for layer in layers}
    components = [_component(one, known) for one in table.tables("components")]
    variables = table.table("variables", optional=True)
    return Application(
        file=FILE,
        name=metadata.text("name", "application"),
        version=metadata.text("version", "0.0.0"),
        variables={name: _variable(variables.table(name)) for name in variables.values},
        components={component.id: component for component in components},
        triggers=_triggers(table, _settings(metadata), [component.id for component in components]),
    )


def _alone(layer: Layer) -> Application:
    """Make an application of a component without a manifest: it answers every path, and may do nothing else."""
    component = Component("main", "the image's component", layer)
    routes = Triggers(http=(SpinRoute("/...", component.id),))
    return Application("the image", component.id, "0.0.0", {}, {component.id: component}, routes)


def _check_understood(table: ManifestTable) -> None:
    for name in table.strings("must_understand"):
        if name not in ("host_requirements", "component_host_requirements"):
            raise table.wrong("must_understand", f"names {name}, which shimd does not know")
    for owner in (table, *table.tables("components")):
        for name, wanted in owner.table("host_requirements", optional=True).values.items():
            if wanted != "optional" and name not in _MET:
                raise owner.wrong(f"host_requirements.{name}", "is required, and shimd does not have it")


def _settings(metadata: ManifestTable) -> ManifestTable:
    """Returns the settings of the kinds of triggers; before Spin 2 there was one kind, with its name among them.

    Later versions still write that, beside, of applications with one kind.
    """
    if "triggers" in metadata.values or "trigger" not in metadata.values:
        return metadata.table("triggers", optional=True)
    only = metadata.table("trigger")
    return metadata.inner("trigger", {only.text("type"): only.values})


def _triggers(table: ManifestTable, settings: ManifestTable, ids: Sequence[str]) -> Triggers:
    declared: dict[str, list[triggers.Declared]] = {}
    for trigger in table.tables("triggers"):
        kind = trigger.of(keys.LOCKED_TRIGGER).text("trigger_type")
        config = triggers.checked(kind, trigger.table("trigger_config"))
        if config.values.get("dependencies"):  # as a spin.toml has them
            raise config.wrong("dependencies", keys.BY_COMPONENTS)
        declared.setdefault(kind, []).append((config, triggers.component_of(kind, config)))
    return triggers.make(declared, settings, ids)


def _variable(table: ManifestTable) -> Variable:
    table.of(keys.LOCKED_VARIABLE)
    return Variable(table.text("default") if table.values.get("default") is not None else None)


def _component(table: ManifestTable, known: Mapping[str, Layer]) -> Component:
    metadata = table.of(keys.LOCKED_COMPONENT).table("metadata", optional=True).of(keys.LOCKED_COMPONENT_METADATA)
    source = partial(_source, known=known)
    return Component(
        id=table.text("id"),
        where=table.place(),
        source=source(table.table("source")),
        environment=table.texts("env"),
        variables=table.texts("config"),
        allowed_outbound_hosts=(*metadata.strings("allowed_outbound_hosts"), *of_http_hosts(metadata)),
        key_value_stores=metadata.strings("key_value_stores"),
        sqlite_databases=metadata.strings("databases"),
        ai_models=metadata.strings("ai_models"),
        contents=dict(_content(one) for one in table.tables("files")),
        dependencies=dependencies.of_locked(table, source),
        middleware=dependencies.of_locked_trigger(table, source),
    )


def _source(table: ManifestTable, known: Mapping[str, Layer]) -> Layer:
    digest = table.of(keys.LOCKED_SOURCE).text("digest")
    if (kind := table.text("content_type", _WASM)) != _WASM:
        raise table.wrong("content_type", f"is {kind}, and components are {_WASM}")
    if digest not in known:
        raise table.wrong("digest", f"is {digest}, and the image has no such layer")
    return known[digest]


def _content(table: ManifestTable) -> tuple[str, Content]:
    path = table.of(keys.LOCKED_FILE).text("path")
    parts = path.split("/")
    if not path or {"", ".", ".."} & set(parts):
        raise table.wrong("path", f'is "{path}", which is no path below the component\'s files')
    if table.values.get("inline") is None:
        return path, Content(digest=table.text("digest"))
    inline = table.text("inline").rstrip("=")
    try:  # Spin writes no padding
        data = base64.b64decode(inline + "=" * (-len(inline) % 4), validate=True)
    except binascii.Error as error:
        raise table.wrong("inline", f"is not base64: {error}") from None
    if table.text("digest", own := f"sha256:{hashlib.sha256(data).hexdigest()}") != own:
        raise table.wrong("digest", f"is not that of inline, which is {own}")
    return path, Content(data=data)
