"""``wasi:sockets/ip-name-lookup``."""

import ipaddress
import socket
from collections.abc import Iterator

from shimd.component.results import Case, Err
from shimd.wasi.io import Pollable, always_ready
from shimd.wasi.net import address

_CODES = {
    socket.EAI_NONAME: "name-unresolvable",
    socket.EAI_AGAIN: "temporary-resolver-failure",
    socket.EAI_FAIL: "permanent-resolver-failure",
}


class NameLookup:
    """``wasi:sockets/ip-name-lookup``; the guest's thread waits for the answer."""

    def resolve_addresses(self, _network: object, name: str) -> "Addresses":
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise Err(_CODES.get(error.errno or 0, "unknown")) from None
        except UnicodeError:
            raise Err("invalid-argument") from None
        return Addresses(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found)


class Addresses:
    """``resolve-address-stream``."""

    def __init__(self, found: "Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]") -> None:
        self._found = found

    def resolve_next_address(self) -> Case | None:
        one = next(self._found, None)
        return address.ip_address(one) if one is not None else None

    def subscribe(self) -> Pollable:
        return always_ready()
