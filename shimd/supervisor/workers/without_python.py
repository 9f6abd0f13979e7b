"""Which programs run in workers without Python, and what their engine's part in C is told of them.

Asked by the supervisor: the fork server and the zygote never look into a plan, so that nothing of one container (the
secrets in its environment) is in the memory that they hand on to the workers of others.
"""

from functools import cache
from pathlib import Path

from shimd import zygote
from shimd.engine import EngineError, PacksApplications, RunsWithoutPython, TakesSockets
from shimd.engines.registry import engine_reference, load_engine
from shimd.protocol.faults import from_engine
from shimd.protocol.invocation import invocation_of
from shimd.protocol.plans import App, ContainerApp
from shimd.supervisor.workers.fork_client import Birthplace


def is_likely(engine: str, *, listens: bool) -> bool:
    """Returns whether most programs run without Python under an engine.

    :param listens: whether the program is to be given listening sockets
    """
    runs = _part_in_c(engine)
    return runs is not None and zygote.available() and (not listens or _takes_sockets(runs))


def may_hand_over(engine: str) -> bool:
    """Returns whether a worker that knows its application may leave it to one without Python."""
    return isinstance(_part_in_c(engine), PacksApplications) and zygote.available()


def may_wait(birthplace: Birthplace) -> bool:
    """Returns whether a worker may be there before its jail is: it has a root's powers until then, and must not be seen
    by processes of a container, as in a pid namespace that others are in (CVE-2016-9962)."""
    return birthplace.pidns in (None, "new")


def engine_block(engine: str, plan: App) -> bytes | None:
    """The block that an engine's part in C needs to run the program of a plan; ``None``: that takes Python.

    :raises ShimdError: the engine refuses the program, in one sentence
    """
    runs = _part_in_c(engine)
    listening = plan.listening if isinstance(plan, ContainerApp) else ()
    if runs is None or not zygote.available() or not plan.artifact:
        return None
    if plan.listen and not (listening and _takes_sockets(runs)):  # else the worker opens them, or says why not
        return None
    try:
        return runs.pack(Path(plan.artifact), invocation_of(plan, listening))
    except EngineError as error:
        raise from_engine(error) from None


def _takes_sockets(engine: RunsWithoutPython) -> bool:
    return isinstance(engine, TakesSockets) and engine.sockets_without_python


@cache
def _part_in_c(name: str) -> RunsWithoutPython | None:
    """An engine that is not warmed, for what it knows without its runtime."""
    engine = load_engine(engine_reference(name))
    return engine if isinstance(engine, RunsWithoutPython) else None
