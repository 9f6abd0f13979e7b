"""What components depend on, and what is called before them: as manifests say it."""

import json
from typing import Any

import pytest

from shimd.apps.spin import dependencies, inherited, locked, manifest
from shimd.apps.spin.model import Component, Dependency
from shimd.engine import Composed, InvalidSetting, Layer
from shimd.engines import componentize
from shimd.engines.composition import MISSING

HEAD = """
spin_manifest_version = 2
application = { name = "composed" }
[[trigger.http]]
route = "/..."
component = "one"
"""
OTHERS = """
[component.two]
source = "two.wasm"
[component.rich]
source = "rich.wasm"
key_value_stores = ["default"]
variables = { a = "b" }
"""


def read(component: str) -> Component:
    text = f'{HEAD}[component.one]\nsource = "one.wasm"\n{component}\n{OTHERS}'
    return manifest.parse(text.encode()).components["one"]


FORMS: list[tuple[str, str, str | Layer, str | None, tuple[str, ...]]] = [
    ('"a:b" = { path = "x.wasm" }', "a:b", "x.wasm", None, ()),
    ('"a:b/c" = { path = "x.wasm", export = "d:e/f" }', "a:b/c", "x.wasm", "d:e/f", ()),
    ('"a:b/c@1.2.3-rc.1" = { component = "two" }', "a:b/c@1.2.3-rc.1", "two.wasm", None, ()),
    ('plain-name = { component = "two", export = "x" }', "plain-name", "two.wasm", "x", ()),
    ('"a:b" = { path = "x.wasm", inherit_configuration = true }', "a:b", "x.wasm", None, inherited.ALL),
    ('"a:b" = { path = "x.wasm", inherit_configuration = false }', "a:b", "x.wasm", None, ()),
    ('"a:b" = { path = "x.wasm", inherit_configuration = ["files"] }', "a:b", "x.wasm", None, ("files",)),
]


@pytest.mark.parametrize(("line", "name", "source", "export", "inherits"), FORMS)
def test_forms(line: str, name: str, source: str, export: str | None, inherits: tuple[str, ...]) -> None:
    (found,) = read(f"[component.one.dependencies]\n{line}").dependencies
    where = f"/spin.toml: component.one.dependencies.{name}"
    assert found == Dependency(where, name, source, export=export, inherits=inherits)


@pytest.mark.parametrize(("value", "inherits"), [("true", inherited.ALL), ("false", ())])
def test_all_dependencies_inherit(value: str, inherits: tuple[str, ...]) -> None:
    found = read(f'dependencies_inherit_configuration = {value}\ndependencies = {{ "a:b" = {{ path = "x" }} }}')
    assert [one.inherits for one in found.dependencies] == [inherits]


WRONG = [
    ('"a:b" = ">= 1.0"', "a:b is in a registry, and shimd asks none"),
    ('"a:b" = { version = "1", registry = "r" }', "a:b.version is to be fetched from elsewhere"),
    ('"a:b" = { url = "https://x", digest = "sha256:y" }', "a:b.url is to be fetched from elsewhere"),
    ('"a:b" = { path = "x", exports = "y" }', "a:b.exports is unknown; export is probably meant"),
    ('"a:b" = 1', "a:b is missing, or not a table"),
    ('"a:b" = {}', "a:b has to have either a path or a component"),
    ('"a:b" = { path = "x", component = "two" }', "a:b has to have either a path or a component"),
    ('"a:b" = { component = "three" }', "a:b.component names 'three', which is no component"),
    ('"a:b" = { component = "rich" }', "a:b.component: rich has key_value_stores, variables, which would not hold"),
    ('"a:b" = { path = "x", export = "c" }', "a:b.export is one interface, and the dependency is for all of a package"),
    ('"a:b" = { path = "x", inherit_configuration = ["file"] }', "a:b.inherit_configuration names file, and there are"),
    ('"a b" = { path = "x" }', "a b is no name of an import"),
    ('"a:b/c/d" = { path = "x" }', "a:b/c/d is no name of an import"),
    ('"a:b@1" = { path = "x" }', "a:b@1 is no name of an import"),
    ('Mixed = { path = "x" }', "Mixed is no name of an import"),
    ('"a:b" = { path = "x" }\n"a:b/c" = { path = "y" }', "a:b/c and a:b may be for the same import"),
    (
        '"a:b@0.2.1" = { path = "x" }\n"a:b@0.2.2" = { path = "y" }',
        "a:b@0.2.2 and a:b@0.2.1 may be for the same import",
    ),
    ('"a:b/c@1.0.0" = { path = "x" }\n"a:b@1.5.0" = { path = "y" }', "a:b@1.5.0 and a:b/c@1.0.0 may be for the same"),
    ('"a:b@1.0.0-a" = { path = "x" }\n"a:b@1.0.0-a+b" = { path = "y" }', "a:b@1.0.0-a+b and a:b@1.0.0-a may be for"),
]


@pytest.mark.parametrize(("lines", "words"), WRONG)
def test_what_is_wrong(lines: str, words: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read(f"[component.one.dependencies]\n{lines}")
    assert str(caught.value).startswith(f"/spin.toml: component.one.dependencies.{words}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a:b@0.1.0", "a:b@0.2.0"),
        ("a:b@1.0.0", "a:b/c@2.0.0"),
        ("a:b/c@0.1.0", "a:b/d@0.1.0"),
        ("a:b/c", "a:b/d"),
        ("a:b@0.0.1", "a:b@0.0.2"),
        ("a:b@1.0.0-alpha", "a:b@1.0.0-beta"),
        ("a:b", "a:c"),
        ("a", "b"),
    ],
)
def test_two_that_are_for_different_imports(one: str, other: str) -> None:
    lines = f'"{one}" = {{ path = "x" }}\n"{other}" = {{ path = "y" }}'
    assert len(read(f"[component.one.dependencies]\n{lines}").dependencies) == 2


def test_two_ways_to_inherit() -> None:
    lines = 'dependencies_inherit_configuration = true\n[component.one.dependencies]\n"a:b" = { path = "x", %s }'
    with pytest.raises(
        InvalidSetting, match=r"a:b.inherit_configuration and dependencies_inherit_configuration exclude"
    ):
        read(lines % "inherit_configuration = false")


def triggers(*triggers: str, component: str = "") -> Any:
    tables = "\n".join(f"[[trigger.{one}" for one in triggers)
    text = (
        f'spin_manifest_version = 2\napplication = {{ name = "x" }}\n{tables}\n[component.one]\nsource = "one.wasm"\n'
    )
    return manifest.parse((text + component + OTHERS).encode())


BEHIND = 'dependencies.middleware = [{ path = "outer.wasm" }, { component = "two", inherit_configuration = ["files"] }]'


def test_middleware_is_its_triggers_components() -> None:
    found = triggers(f'http]]\nroute = "/"\ncomponent = "one"\n{BEHIND}')
    assert [route.component for route in found.triggers.http] == ["one"]
    outer, inner = found.components["one"].middleware
    where = "/spin.toml: trigger.http[0].dependencies.middleware"
    assert outer == Dependency(f"{where}[0]", "", "outer.wasm")
    assert inner == Dependency(f"{where}[1]", "", "two.wasm", inherits=("files",))
    assert found.components["two"].middleware == ()


def test_a_component_with_and_without_middleware() -> None:
    """Each trigger has its own; the ids are those that Spin makes."""
    found = triggers(
        f'http]]\nroute = "/"\ncomponent = "one"\n{BEHIND}',
        'http]]\nroute = "/plain"\ncomponent = "one"',
        f'http]]\nid = "named"\nroute = "/other"\ncomponent = "one"\n{BEHIND}',
        'redis]]\naddress = "redis://a"\nchannel = "c"\ncomponent = "one"',
    )
    ids = ["one-for-one-http-trigger", "one", "one-for-named"]
    assert [route.component for route in found.triggers.http] == ids
    assert [trigger.component for trigger in found.triggers.redis] == ["one"]
    assert [len(found.components[id].middleware) for id in ids] == [2, 0, 2]
    assert found.components["one-for-named"].where == "/spin.toml: component.one"


def test_middleware_of_a_component_that_stands_in_place() -> None:
    found = triggers(f'http]]\nroute = "/"\ncomponent = {{ source = "in.wasm" }}\n{BEHIND}')
    (route,) = found.triggers.http
    assert [one.source for one in found.components[route.component].middleware] == ["outer.wasm", "two.wasm"]


WRONG_MIDDLEWARE = [
    ('dependencies.middleware = ["two"]', "dependencies.middleware[0] is not a table"),
    ('dependencies.middleware = { path = "x" }', "dependencies.middleware is not a list"),
    ('dependencies.auth = [{ path = "x" }]', "dependencies.auth is unknown; there is middleware"),
    ('dependencies.middleware = [{ path = "x", export = "y" }]', "dependencies.middleware[0].export is unknown"),
    (
        'dependencies.middleware = [{ component = "no" }]',
        "dependencies.middleware[0].component names 'no', which is no",
    ),
    ('dependencies.middleware = [{ component = "rich" }]', "dependencies.middleware[0].component: rich has key_value"),
    ('dependencies.middleware = [{ package = "a:b", version = "1" }]', "dependencies.middleware[0].package is to be"),
    ('components.middleware = ["two"]', "components would be called before the component, and that is written"),
]


@pytest.mark.parametrize(("line", "words"), WRONG_MIDDLEWARE)
def test_middleware_that_is_wrong(line: str, words: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        triggers(f'http]]\nroute = "/"\ncomponent = "one"\n{line}')
    assert str(caught.value).startswith(f"/spin.toml: trigger.http[0].{words}")


def test_middleware_before_nothing() -> None:
    with pytest.raises(InvalidSetting, match=r"http\[0\].dependencies.middleware would have nothing to call"):
        triggers(f'http]]\nroute = "/"\nstatic_response = {{ body = "x" }}\n{BEHIND}')


def test_middleware_of_another_trigger() -> None:
    with pytest.raises(InvalidSetting, match=r"trigger.redis\[0\].dependencies is for http triggers"):
        triggers(f'redis]]\naddress = "redis://a"\nchannel = "c"\ncomponent = "one"\n{BEHIND}')


def test_a_name_that_is_taken() -> None:
    component = '[component.one-for-x]\nsource = "y"\n'
    with pytest.raises(InvalidSetting, match=r"http\[0\].id makes one-for-x of its component with its middleware"):
        triggers(
            f'http]]\nid = "x"\nroute = "/"\ncomponent = "one"\n{BEHIND}',
            'http]]\nroute = "/y"\ncomponent = "one"',
            component=component,
        )


def layer(letter: str) -> Layer:
    return Layer("sha256:" + letter * 64, "application/vnd.wasm.content.layer.v1+wasm", 10)


ONE, TWO = layer("a"), layer("b")


def from_lock(**changes: Any) -> Component:
    one = {"id": "one", "source": {"content_type": "application/wasm", "digest": ONE.digest}, **changes}
    trigger = {"id": "t", "trigger_type": "http", "trigger_config": {"component": "one", "route": "/..."}}
    text = json.dumps({"spin_lock_version": 1, "components": [one], "triggers": [trigger]})
    return locked.parse(text.encode(), [ONE, TWO]).components["one"]


SOURCE = {"content_type": "application/wasm", "digest": TWO.digest}


@pytest.mark.parametrize(
    ("inherit", "keys"),
    [({}, ()), ({"inherit": "All"}, inherited.ALL), ({"inherit": {"Some": ["files"]}}, ("files",))],
)
def test_locked(inherit: dict[str, Any], keys: tuple[str, ...]) -> None:
    given = {"source": SOURCE, "export": None, **inherit}
    found = from_lock(
        dependencies={"a:b/c": given},
        trigger_dependencies={"middleware": [given]},
        metadata={"resolve-trigger-dependencies-using": "http"},
        host_requirements={"middleware": "required"},
    )
    where = "the image's locked application: components[0]"
    assert found.dependencies == (Dependency(f"{where}.dependencies.a:b/c", "a:b/c", TWO, inherits=keys),)
    assert found.middleware == (Dependency(f"{where}.trigger_dependencies.middleware[0]", "", TWO, inherits=keys),)


WRONG_LOCKED: list[tuple[dict[str, Any], str]] = [
    (
        {"dependencies": {"a:b": {"source": {"source": "file:///x"}}}},
        "dependencies.a:b.source is no layer of the image",
    ),
    ({"dependencies": {"a:b": {"source": SOURCE, "inherit": "Al"}}}, "dependencies.a:b.inherit is neither"),
    (
        {"dependencies": {"a:b": {"source": SOURCE, "inherit": {"Some": ["x"]}}}},
        "dependencies.a:b.inherit.Some names x",
    ),
    ({"dependencies": {"a:b": {"source": SOURCE, "export": "x"}}}, "dependencies.a:b.export is one interface"),
    ({"dependencies": {"a b": {"source": SOURCE}}}, "dependencies.a b is no name of an import"),
    ({"trigger_dependencies": {"auth": [{"source": SOURCE}]}}, "trigger_dependencies.auth is unknown"),
    (
        {
            "trigger_dependencies": {"middleware": [{"source": SOURCE}]},
            "metadata": {"resolve-trigger-dependencies-using": "redis"},
        },
        "trigger_dependencies.middleware is for a redis trigger",
    ),
]


@pytest.mark.parametrize(("changes", "words"), WRONG_LOCKED)
def test_locked_that_is_wrong(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        from_lock(**changes)
    assert str(caught.value).startswith(f"the image's locked application: components[0].{words}")


def test_what_is_compiled() -> None:
    found = read('[component.one.dependencies]\n"a:b" = { path = "x", inherit_configuration = ["files"] }')
    program = dependencies.program(found, lambda source: f"/{source}")
    assert isinstance(program, Composed)
    assert (program.name, program.parts) == ("/spin.toml: component.one", ["/one.wasm", "/x"])
    (planned,) = json.loads(program.plan)["dependencies"]
    assert (planned["field"], planned["name"], planned["export"]) == ("dependencies.a:b", "a:b", None)
    assert planned["denied"] == inherited.denied(["files"])
    assert dependencies.program(read(""), lambda source: f"/{source}") == "/one.wasm"


def test_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    composed = read('[component.one.dependencies]\n"a:b" = { path = "x" }')
    monkeypatch.setattr(componentize, "installed", lambda: True)
    dependencies.check([composed])
    monkeypatch.setattr(componentize, "installed", lambda: False)
    dependencies.check([read("")])
    with pytest.raises(InvalidSetting) as caught:
        dependencies.check([composed])
    assert str(caught.value) == f"/spin.toml: component.one.dependencies.a:b: {MISSING}"
    assert "install" in MISSING


#: What reaches nothing of a component's configuration.
HARMLESS = {
    *("fermyon:spin-cron/cron-types", "fermyon:spin/rdbms-types", "fermyon:spin/redis-types"),
    *("spin:mqtt-trigger/spin-mqtt-types", "wasi:cli/exit", "wasi:cli/stderr", "wasi:cli/stdin", "wasi:cli/stdout"),
    *(f"wasi:cli/terminal-{name}" for name in ("input", "output", "stderr", "stdin", "stdout")),
    *("wasi:clocks/monotonic-clock", "wasi:clocks/wall-clock", "wasi:filesystem/types", "wasi:http/types"),
    *("wasi:io/error", "wasi:io/poll", "wasi:io/streams", "wasi:random/insecure", "wasi:random/insecure-seed"),
    *("wasi:random/random", "wasi:sockets/instance-network", "wasi:sockets/network"),
}


def test_every_interface_is_denied_or_harmless() -> None:
    """Whatever Spin's world here gets: nothing of it is in a dependency's reach unawares."""
    import inspect
    import re

    from shimd.apps.spin import sockets, world
    from shimd.wasi import world as wasi

    text = "".join(map(inspect.getsource, (world, sockets, wasi)))
    names = {name.partition("@")[0] for name in re.findall(r'"((?:wasi|spin|fermyon)[\w-]*:[\w-]+/[\w@.-]+)"', text)}
    assert len(names) > 40
    assert names - set(inherited.denied(())) == HARMLESS
