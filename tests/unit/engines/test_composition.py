"""One component of several: which import a dependency is for, and what it has no access to."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from shimd.apps.spin import inherited
from shimd.engine import InvalidModule, UnsupportedFeature
from shimd.engines import componentize, composition
from shimd.engines.composition import Plan, PlannedDependency, PlannedMiddleware
from shimd.engines.core import COMPONENT
from shimd.engines.wasmtime_artifact import outline_of
from shimd.formats.parts import Parts, join
from tests.components import rust
from tests.components.build import both
from tests.components.parts import importing, part

with_it = pytest.mark.skipif(
    not componentize.version(), reason="native/componentize is built by cargo: run tools/setup"
)


def needing(*imports: str) -> bytes:
    """A component that imports instances with a function ``f``, or plain functions, in the text format."""
    types = [f'(import "{name}" {_PLAIN if ":" not in name else _INSTANCE})' for name in imports]
    return f'(component {" ".join(types)} (import "b:b/b" {_INSTANCE}))'.encode()


_PLAIN, _INSTANCE = "(func)", '(instance (export "f" (func)))'
_CORE = (
    '(core module $m (func (export "f"))) (core instance $i (instantiate $m)) (func $f (canon lift (core func $i "f")))'
)


def giving(*exports: str) -> bytes:
    """One that exports such."""
    parts = [f'(export "{name}" ({"instance $f" if ":" in name else "func $f"}))' for name in exports]
    return f'(component {_CORE} (instance $f (export "f" (func $f))) {" ".join(parts)})'.encode()


def dependency(name: str, export: str | None = None, denied: Sequence[str] = ()) -> PlannedDependency:
    return PlannedDependency(f"dependencies.{name}", name, export, denied)


def composed(plan: Plan, *parts: bytes) -> set[str]:
    """The imports of what is made of them."""
    made = composition.whole(join(Parts(plan.json(), parts)))
    assert made.startswith(COMPONENT)
    return {module for module, _name in outline_of(made).imports}


MATCHING = [
    ("a:b/c@0.1.0", ["a:b/c@0.1.0"]),
    ("a:b/c", ["a:b/c@0.1.0"]),
    ("a:b/c", ["a:b/c"]),
    ("a:b", ["a:b/c@0.1.0", "a:b/d", "a:b/e@2.0.0"]),
    ("a:b@0.1.0", ["a:b/c@0.1.0", "a:b/d@0.1.0"]),
    ("a-b", ["a-b"]),
]
OTHERS = [
    ("a:b/c@0.1.0", "a:b/c"),
    ("a:b/c@0.1.0", "a:b/c@0.1.1"),
    ("a:b/c", "a:b/d"),
    ("a:b", "a:bb/c"),
    ("a:b@0.1.0", "a:b/c"),
    ("a:b/c", "a:b/c-d"),
    ("a-b", "a:b/a-b"),
    ("a", "a-b"),
]


@with_it
@pytest.mark.parametrize(("name", "imports"), MATCHING)
def test_what_a_name_is_for(name: str, imports: list[str]) -> None:
    assert composed(Plan([dependency(name)]), needing(*imports), giving(*imports)) == {"b:b/b"}


@with_it
@pytest.mark.parametrize(("name", "other"), OTHERS)
def test_what_a_name_is_not_for(name: str, other: str) -> None:
    with pytest.raises(InvalidModule) as caught:
        composed(Plan([dependency(name)]), needing(other), giving(other))
    words = f"dependencies.{name} matches none of the component's imports, which are {other}, b:b/b"
    assert str(caught.value) == words


@with_it
def test_two_for_one() -> None:
    given = giving("a:b/c", "a:b/d")
    with pytest.raises(InvalidModule, match=r"^dependencies.a:b and dependencies.a:b/d both match the import a:b/d$"):
        composed(Plan([dependency("a:b"), dependency("a:b/d")]), needing("a:b/c", "a:b/d"), given, given)


@with_it
@pytest.mark.parametrize("export", ["x:y/z", "a:b/c@1.0.0", "plain-name"])
def test_another_export(export: str) -> None:
    name = "plain-one" if ":" not in export else "a:b/c"
    needs, gives = needing(name), giving("other:one/here", export)
    assert composed(Plan([dependency(name, export)]), needs, gives) == {"b:b/b"}
    with pytest.raises(
        InvalidModule, match=rf"^dependencies.{name} does not export {name}, for the import {name}, but"
    ):
        composed(Plan([dependency(name)]), needs, gives)


@with_it
def test_types_that_do_not_fit() -> None:
    wrong = b'(component (instance $i) (export "a:b/c" (instance $i)))'
    with pytest.raises(InvalidModule, match=r"^dependencies.a:b: its a:b/c does not fit the import a:b/c: "):
        composed(Plan([dependency("a:b")]), needing("a:b/c"), wrong)


@with_it
@pytest.mark.parametrize("broken", [b"\0asm\1\0\0\0", COMPONENT + b"\0", b"(module)", b"(component", b""])
def test_parts_that_are_none(broken: bytes) -> None:
    plan = Plan([dependency("a:b", denied=inherited.denied(()))])
    with pytest.raises(InvalidModule, match=r"^dependencies.a:b\b"):
        composed(plan, needing("a:b/c"), broken)
    with pytest.raises(InvalidModule, match=r"^the component\b|^dependencies.a:b matches none"):
        composed(plan, broken, giving("a:b/c"))


@with_it
def test_a_plan_that_is_none() -> None:
    for plan in ("", "{}", '{"dependencies": [], "middleware": [], "more": 1}'):
        with pytest.raises(InvalidModule):
            composition.whole(join(Parts(plan, [needing("a:b/c")])))
    with pytest.raises(InvalidModule, match="another number of parts"):
        composition.whole(join(Parts(Plan().json(), [needing("a:b/c"), giving("a:b/c")])))


def test_a_program_of_one_part() -> None:
    for program in (b"(module)", COMPONENT, b"\0asm\1\0\0\0"):
        assert composition.whole(program) is program


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(componentize, "library", lambda: None)
    with pytest.raises(UnsupportedFeature, match="install it on the node"):
        composition.whole(join(Parts(Plan().json(), [COMPONENT])))


#: Every interface that may be denied, in some versions. Compatible ones are one import, and so there are three lists.
INTERFACES = [
    """
fermyon:spin/config fermyon:spin/http fermyon:spin/key-value fermyon:spin/llm fermyon:spin/mysql
fermyon:spin/postgres fermyon:spin/redis fermyon:spin/sqlite spin:postgres/postgres@3.0.0
spin:postgres/postgres@4.0.0 spin:sqlite/sqlite@3.0.0
wasi:cli/environment@0.2.0 wasi:config/store@0.2.0-draft-2024-09-27 wasi:filesystem/preopens@0.2.3
wasi:http/outgoing-handler@0.2.0 wasi:keyvalue/atomics@0.2.0-draft2 wasi:keyvalue/batch@0.2.0-draft2
wasi:keyvalue/store@0.2.0-draft2 wasi:sockets/ip-name-lookup@0.2.0 wasi:sockets/tcp-create-socket@0.2.0
wasi:sockets/tcp@0.2.0 wasi:sockets/udp-create-socket@0.2.0 wasi:sockets/udp@0.2.0
""".split(),
    """
fermyon:spin/key-value@2.0.0 fermyon:spin/llm@2.0.0 fermyon:spin/mqtt@2.0.0 fermyon:spin/mysql@2.0.0
fermyon:spin/postgres@2.0.0 fermyon:spin/redis@2.0.0 fermyon:spin/sqlite@2.0.0 fermyon:spin/variables@2.0.0
spin:postgres/postgres@4.1.0 spin:sqlite/sqlite@3.1.0 wasi:cli/environment@0.2.6 wasi:filesystem/preopens@0.2.6
wasi:http/client@0.3.0-rc-2026-03-15 wasi:http/outgoing-handler@0.2.6 wasi:sockets/tcp@0.2.6 wasi:sockets/udp@0.2.6
""".split(),
    """
spin:key-value/key-value@3.0.0 spin:mqtt/mqtt@3.0.0 spin:mysql/mysql@3.0.0 spin:postgres/postgres@4.2.0
spin:redis/redis@3.0.0 spin:sqlite/sqlite@3.1.0 spin:variables/variables@3.0.0 wasi:cli/environment@0.3.0
wasi:filesystem/preopens@0.3.0 wasi:http/client@0.3.0 wasi:sockets/ip-name-lookup@0.3.0 wasi:sockets/types@0.3.0
""".split(),
]


def unversioned(names: set[str]) -> set[str]:
    return {name.partition("@")[0] for name in names}


def test_all_interfaces_are_here() -> None:
    assert unversioned({name for group in INTERFACES for name in group}) == set(inherited.denied(()))


@with_it
@pytest.mark.parametrize("group", INTERFACES, ids=["first", "older", "newer"])
@pytest.mark.parametrize("keys", [(), *((key,) for key in inherited.ALL), inherited.ALL], ids=str)
def test_what_is_denied(keys: tuple[str, ...], group: list[str]) -> None:
    """Exactly that is imported no more, in all versions: nobody has to be trusted to refuse it."""
    given, wanted = importing(*group), b'(component (import "run" (func $f)) (export "again" (func $f)))'
    assert set(group) <= {module for module, _name in outline_of(given).imports}
    denied = inherited.denied(keys)
    after = composed(Plan([dependency("run", denied=denied)]), wanted, given)
    assert {name for name in after if name.partition("@")[0] in denied} == set()
    assert {name for name in group if name.partition("@")[0] not in denied} <= after


@with_it
@pytest.mark.parametrize("form", ['(instance (export "x" (core module)))', '(instance (export "x" (component)))'])
def test_what_cannot_be_taken_away(form: str) -> None:
    """Whatever it imports by the name of a denied interface: it is not let through."""
    name = "wasi:cli/environment@0.2.99"
    given = f'(component (import "{name}" {form}) {_CORE} (export "run" (func $f)))'.encode()
    plan = Plan([dependency("run", denied=inherited.denied(()))])
    with pytest.raises(InvalidModule, match=r"^dependencies.run cannot be confined: "):
        composed(plan, needing("run"), given)


@with_it
def test_middleware_has_what_it_inherits() -> None:
    plan = Plan(middleware=[PlannedMiddleware("middleware[0]", inherited.denied(()))])
    variables = "spin:variables/variables@3.0.0"
    assert variables not in composed(plan, rust.component("newer").read_bytes(), part("layer"))
    plan = replace(plan, middleware=[PlannedMiddleware("middleware[0]", inherited.denied(["variables"]))])
    assert variables in composed(plan, rust.component("newer").read_bytes(), part("layer"))


@with_it
@pytest.mark.parametrize(("name", "handler"), [("gate", "incoming-handler@0.2.0"), ("layer", "handler@0.3.0")])
def test_middleware_of_what_has_two_handlers(name: str, handler: str) -> None:
    """Nothing reaches the other handler, which would be a way around."""
    plan = Plan(middleware=[PlannedMiddleware("middleware[0]", ())])
    made = composition.whole(join(Parts(plan.json(), [both().read_bytes(), part(name)])))
    assert outline_of(made).exports == [f"wasi:http/{handler}"]


@with_it
@pytest.mark.parametrize(("inner", "outer"), [("app", "layer"), ("layer", "gate"), ("gate", "given")])
def test_what_is_no_middleware(inner: str, outer: str) -> None:
    with pytest.raises(InvalidModule, match=r"^middleware\[0\] is no middleware for the component: it does not both"):
        composed(Plan(middleware=[PlannedMiddleware("middleware[0]", ())]), part(inner), part(outer))


@with_it
def test_middleware_of_what_serves_nothing() -> None:
    with pytest.raises(InvalidModule, match="the component exports no HTTP handler"):
        composed(Plan(middleware=[PlannedMiddleware("middleware[0]", ())]), part("given"), part("gate"))
