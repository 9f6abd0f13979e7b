"""Engines by name: the entry points of the group ``shimd.engines``, whoever's distribution they come from.

A fork server is given an engine by *reference* (``module:class``): looking it up by name imports a hundred modules,
for which each worker would pay in memory.
"""

from functools import cache

from shimd.engine import CompilesForFamily, Engine, MissingRuntime, OfFamily, RunsApplications, TakesLayers
from shimd.errors import FailedPrecondition, InvalidArgument

GROUP = "shimd.engines"
#: Engines that are no runtimes by themselves: others hand programs over to them (:class:`OtherEngine`).
APPS = "shimd.apps"


@cache
def engine_names() -> tuple[str, ...]:
    """Returns the names of the installed engines, sorted."""
    from importlib.metadata import entry_points

    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


@cache
def engine_reference(name: str) -> str:
    """Returns the engine's reference, for :func:`load_engine`.

    :raises InvalidArgument: none is installed under that name
    """
    from importlib.metadata import entry_points

    for group in (GROUP, APPS):
        for entry in entry_points(group=group, name=name):
            return entry.value
    raise InvalidArgument(f"engine {name} is not installed; installed are {', '.join(engine_names())}")


def installed_version(name: str) -> str:
    """Returns the current :meth:`Engine.version`; empty if the node lacks what the engine runs on.

    :raises InvalidArgument: none is installed under that name
    """
    try:
        return load_engine(engine_reference(name)).version()
    except MissingRuntime:
        return ""


@cache
def engine_version(name: str) -> str:
    """:meth:`Engine.version`, as it was when this process first asked.

    :raises InvalidArgument: none is installed under that name
    :raises FailedPrecondition: the node lacks what it runs on
    """
    try:
        return load_engine(engine_reference(name)).version()
    except MissingRuntime as missing:
        raise FailedPrecondition(f"the engine {name} cannot run on this node: {missing}") from missing


def lacking(name: str) -> MissingRuntime | None:
    """Returns what the node lacks for an engine that is installed; ``None``: nothing that the engine knows of."""
    try:
        engine_version(name)
    except FailedPrecondition as error:
        if isinstance(error.__cause__, MissingRuntime):
            return error.__cause__
    return None


@cache
def engine_family(name: str) -> str:
    """Returns the engine that compiles for an engine: itself, if it does not say otherwise (:class:`OfFamily`)."""
    engine = load_engine(engine_reference(name))
    return engine.family if isinstance(engine, OfFamily) else name


@cache
def engine_compiler(name: str) -> str:
    """Returns the engine whose fork server compiles for an engine: itself, if it can (:class:`CompilesForFamily`), or
    its family."""
    engine = load_engine(engine_reference(name))
    compiles = isinstance(engine, CompilesForFamily) and engine.compiles_for_family
    return name if compiles else engine_family(name)


@cache
def engine_layers(name: str) -> frozenset[str]:
    """Returns the media types of layers that an engine takes besides WebAssembly's (:class:`TakesLayers`)."""
    engine = load_engine(engine_reference(name))
    return frozenset(engine.layers) if isinstance(engine, TakesLayers) else frozenset()


@cache
def engine_runs_applications(name: str) -> bool:
    """Returns whether its workers find their programs themselves (:class:`RunsApplications`)."""
    return isinstance(load_engine(engine_reference(name)), RunsApplications)


def load_engine(reference: str) -> Engine[object]:
    """Import and construct the engine of a reference ``module:class``."""
    from importlib import import_module

    module, _, attribute = reference.partition(":")
    engine: Engine[object] = getattr(import_module(module), attribute)()
    return engine
