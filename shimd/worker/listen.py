"""The listening sockets that an app is given, for engines that take them."""

from collections.abc import Sequence

from shimd.engine import Engine, TakesSockets
from shimd.errors import Unimplemented
from shimd.isolation.listeners import listener
from shimd.oci.listen import ANNOTATION
from shimd.protocol.plans import App, ContainerApp


def listening(engine: Engine[object], plan: App) -> Sequence[int]:
    """A worker's: those that came with its jail, or else new ones, close-on-exec.

    :raises Unimplemented: the engine takes no sockets
    :raises FailedPrecondition: an address is not there, or in use
    """
    if not isinstance(engine, TakesSockets):
        raise Unimplemented(
            f"{ANNOTATION}: under {engine.name}, an app opens its listening sockets itself;"
            f" {ANNOTATION}.CONTAINER is for one container of a pod only"
        )
    with_jail = plan.listening if isinstance(plan, ContainerApp) else ()
    return with_jail or [listener(*address) for address in plan.listen]
