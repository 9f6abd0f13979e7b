"""Listening sockets for an app, opened in its network namespace while it is still root's."""

import socket

from shimd.errors import FailedPrecondition, reason
from shimd.oci.listen import ANNOTATION


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
