"""Engines by name: the entry points of the group ``shimd.engines``, whoever's distribution they come from."""

from functools import cache
from importlib.metadata import entry_points

from shimd.engines.base import Engine
from shimd.errors import InvalidArgument

GROUP = "shimd.engines"


@cache
def engine_names() -> tuple[str, ...]:
    """The engines installed, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


@cache
def get_engine(name: str) -> Engine[object]:
    """The engine of that name, one object a process.

    :raises InvalidArgument: none is installed under that name
    """
    for entry in entry_points(group=GROUP, name=name):
        engine: Engine[object] = entry.load()()
        return engine
    raise InvalidArgument(f"engine {name} is not installed; installed are {', '.join(engine_names())}")
