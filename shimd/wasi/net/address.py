"""Addresses and errors: ``wasi:sockets/network``'s, and the host's."""

import errno
import ipaddress
import socket
from typing import Any

from shimd.component.results import Case, Err

FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
_NAMES = {family: name for name, family in FAMILIES.items()}
_CODES = {
    errno.EACCES: "access-denied",
    errno.EPERM: "access-denied",
    errno.EAFNOSUPPORT: "not-supported",
    errno.EOPNOTSUPP: "not-supported",
    errno.EINVAL: "invalid-argument",
    errno.ENOMEM: "out-of-memory",
    errno.ENOBUFS: "out-of-memory",
    errno.ETIMEDOUT: "timeout",
    errno.EALREADY: "concurrency-conflict",
    errno.EAGAIN: "would-block",
    errno.EINPROGRESS: "would-block",
    errno.EISCONN: "invalid-state",
    errno.ENOTCONN: "invalid-state",
    errno.EMFILE: "new-socket-limit",
    errno.ENFILE: "new-socket-limit",
    errno.EADDRNOTAVAIL: "address-not-bindable",
    errno.EADDRINUSE: "address-in-use",
    errno.EHOSTUNREACH: "remote-unreachable",
    errno.ENETUNREACH: "remote-unreachable",
    errno.ENETDOWN: "remote-unreachable",
    errno.ECONNREFUSED: "connection-refused",
    errno.ECONNRESET: "connection-reset",
    errno.EPIPE: "connection-reset",
    errno.ECONNABORTED: "connection-aborted",
    errno.EMSGSIZE: "datagram-too-large",
}


def failure(error: OSError) -> Err:
    """Convert an error of the host's to an ``error-code``."""
    return Err(_CODES.get(error.errno or 0, "unknown"))


def family_name(family: int) -> str:
    return _NAMES[socket.AddressFamily(family)]


def ip_address(found: "ipaddress.IPv4Address | ipaddress.IPv6Address") -> Case:
    """Convert an address to the variant ``ip-address``."""
    size = 1 if found.version == 4 else 2
    packed = found.packed
    parts = tuple(int.from_bytes(packed[at : at + size]) for at in range(0, len(packed), size))
    return Case(f"ipv{found.version}", parts)


def from_host(family: int, address: Any) -> Case:
    """Convert an address of :mod:`socket` to the variant ``ip-socket-address``."""
    parts = ip_address(ipaddress.ip_address(address[0].partition("%")[0])).payload
    if family == socket.AF_INET:
        return Case("ipv4", {"port": address[1], "address": parts})
    fields = {"port": address[1], "flow-info": address[2], "address": parts, "scope-id": address[3]}
    return Case("ipv6", fields)


def to_host(family: int, address: Case) -> tuple[Any, ...]:
    """Convert a variant ``ip-socket-address`` to an address for :mod:`socket`.

    :raises Err: ``invalid-argument``: it is of another family, or IPv4 mapped into IPv6
    """
    fields = address.payload
    if FAMILIES[address.tag] != family:
        raise Err("invalid-argument")
    if family == socket.AF_INET:
        return ".".join(map(str, fields["address"])), fields["port"]
    found = ipaddress.IPv6Address(b"".join(part.to_bytes(2) for part in fields["address"]))
    if found.ipv4_mapped is not None:
        raise Err("invalid-argument")
    return str(found), fields["port"], fields["flow-info"], fields["scope-id"]


def remote(family: int, address: Case) -> tuple[Any, ...]:
    """Convert the address of a peer, as :func:`to_host` does.

    :raises Err: ``invalid-argument``: nobody can have such an address
    """
    found = to_host(family, address)
    if found[1] == 0 or ipaddress.ip_address(found[0]).is_unspecified:
        raise Err("invalid-argument")
    return found
