"""Listening sockets for an app, opened in its network namespace while it is still root's."""

import socket
from collections.abc import Sequence

from shimd.engines.base import Engine, TakesSockets
from shimd.errors import FailedPrecondition, Unimplemented, reason
from shimd.task.listen import ANNOTATION
from shimd.worker.messages import Plan


def listening(engine: Engine[object], plan: Plan) -> Sequence[int]:
    """A worker's: those that came with its world, or else new ones, close-on-exec.

    :raises Unimplemented: the engine takes no sockets
    :raises FailedPrecondition: an address is not there, or in use
    """
    if not isinstance(engine, TakesSockets):
        raise Unimplemented(
            f"{ANNOTATION}: under {engine.name}, an app opens its listening sockets itself;"
            f" {ANNOTATION}.CONTAINER is for one container of a pod only"
        )
    return plan.get("listening") or [listener(*address) for address in plan["listen"]]


def listener(address: str, port: int) -> int:
    """:param address: an IP address, empty for all of them
    :raises FailedPrecondition: it is not there, or in use
    """
    all_families = not address and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if all_families or ":" in address else socket.AF_INET
    try:
        return socket.create_server(
            (address, port), family=family, backlog=socket.SOMAXCONN, dualstack_ipv6=all_families
        ).detach()
    except OSError as error:
        raise FailedPrecondition(
            f"{ANNOTATION}: port {port} of {address or 'all addresses'}: {reason(error)}"
        ) from None
