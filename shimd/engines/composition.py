"""Programs of several components, which are put together before they are compiled: by ``native/componentize``."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest

from shimd.engine import InvalidModule, UnsupportedFeature
from shimd.engines import componentize
from shimd.engines.core import COMPONENT, from_text
from shimd.formats import parts

MISSING = "composing takes shimd-componentize: install it on the node (make componentize-native)"


@dataclass(frozen=True)
class PlannedDependency:
    field: str
    """Where it is declared, for messages."""
    name: str
    """The imports that it is for."""
    export: str | None
    """The one of its exports that is taken for them; ``None``: those of the same names."""
    denied: Sequence[str]
    """The interfaces, without versions, that it does not inherit."""


@dataclass(frozen=True)
class PlannedMiddleware:
    field: str
    denied: Sequence[str]


@dataclass(frozen=True)
class Plan:
    """What a component is made of. Its parts are the component, its dependencies, and its middleware, outermost first:
    ``native/componentize/src/compose.rs``."""

    dependencies: Sequence[PlannedDependency] = ()
    middleware: Sequence[PlannedMiddleware] = ()

    def json(self) -> str:
        return json.dumps(asdict(self))


def whole(program: bytes) -> bytes:
    """Returns a program as it is to be compiled: put together, if it comes in parts.

    :raises InvalidModule: they do not fit
    """
    if not parts.is_parts(program):
        return program
    try:
        found = parts.split(program)
    except ValueError as error:
        raise InvalidModule(str(error)) from None
    fields = _fields(found.plan)
    components = [_component(part, field) for part, field in zip_longest(found.parts, fields[: len(found.parts)])]
    composed = componentize.compose(found.plan, components)
    if composed is None:
        raise UnsupportedFeature(MISSING)
    return composed


def _fields(plan: str) -> list[str]:
    """Returns how parts are called; of a plan that is none nothing, for the library says so."""
    try:
        table = json.loads(plan)
        return ["the component", *(one["field"] for one in (*table["dependencies"], *table["middleware"]))]
    except (ValueError, KeyError, TypeError):
        return []


def _component(part: bytes, field: str | None) -> bytes:
    try:
        binary = part if part.startswith(b"\0asm") else from_text(part)
        return binary if binary.startswith(COMPONENT) else componentize.component(binary) or binary
    except InvalidModule as error:
        raise InvalidModule(f"{field}: {error}") from None
