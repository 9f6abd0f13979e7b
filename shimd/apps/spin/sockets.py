"""``wasi:sockets`` under the rules that hold for requests (``native/wasmtime/src/spin/sockets.rs`` has the same)."""

import ipaddress
from collections.abc import Mapping
from typing import Any, NoReturn

from shimd.apps.spin.allowed import AllowedHosts
from shimd.component.results import Err
from shimd.wasi import net
from shimd.wasi.destinations import Destinations
from shimd.wasi.net.rules import Use


class Rules:
    """What a component may connect to, and what the operator blocks; nobody can connect to a component."""

    def __init__(self, allowed: AllowedHosts, destinations: Destinations) -> None:
        self._allowed, self._destinations = allowed, destinations

    def __call__(self, use: Use, host: str, port: int) -> bool:
        address = ipaddress.ip_address(host.partition("%")[0])
        if use is Use.BIND:  # a place that the system chooses
            return address.is_unspecified and not port
        if use is Use.LISTEN:
            return False
        scheme = "tcp" if use is Use.TCP else "udp"
        return self._allowed.allows(scheme, str(address), port) and not self._destinations.blocks(address)


class NoNames:
    """``wasi:sockets/ip-name-lookup`` of a component that opens no sockets."""

    def resolve_addresses(self, _network: object, _name: str) -> NoReturn:
        raise Err("permanent-resolver-failure")  # as the native host says


def interfaces(allowed: AllowedHosts, destinations: Destinations) -> Mapping[str, Any]:
    """Returns the providers of those that make sockets and look names up.

    Names are told to servers, and so looked up only for a component that may send something.
    """
    rules = Rules(allowed, destinations)
    return {
        "wasi:sockets/tcp-create-socket": net.TcpCreateSocket(rules),
        "wasi:sockets/udp-create-socket": net.UdpCreateSocket(rules),
        "wasi:sockets/ip-name-lookup": net.NameLookup() if allowed.may_ever("tcp", "udp") else NoNames(),
    }
