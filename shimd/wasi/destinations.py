"""The addresses that guests may connect to: a name is looked up once, and what is connected to is what was checked.

So no name leads into a blocked network, whatever its server answers the second time it is asked.
"""

import ipaddress
import socket
from collections.abc import Collection, Iterator

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: Where an address of IPv6 has one of IPv4 in its last bits: mapped, compatible (RFC 4291), NAT64, also with a prefix
#: of one's own (RFC 6052, RFC 8215), and translated (RFC 2765).
_EMBEDDING = ("::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96")
_LAST_BITS = tuple(map(ipaddress.IPv6Network, _EMBEDDING))


class Prohibited(OSError):
    """A destination is in a blocked network."""


class Destinations:
    def __init__(self, networks: Collection[Network] = (), *, private: bool = False) -> None:
        """:param private: whether all networks that are not global are blocked, loopback among them"""
        self.networks, self.private = networks, private

    def __bool__(self) -> bool:
        """Whether anything is blocked."""
        return bool(self.networks) or self.private

    def blocks(self, address: Address) -> bool:
        if self.private and not _is_public(address):
            return True
        if any(address in network for network in self.networks):
            return True
        return any(map(self.blocks, _behind(address)))

    def refuses(self, host: str) -> bool:
        """Returns whether a host is an address that is blocked, which takes no look-up."""
        try:
            return bool(self) and self.blocks(ipaddress.ip_address(host))
        except ValueError:
            return False

    async def addresses(self, host: str, port: int) -> list[str]:
        """Returns the addresses of a host that may be connected to; where nothing is blocked, the host as it is.

        :raises Prohibited: it has no others
        :raises OSError: it is not known
        """
        if not self:
            return [host]
        from anyio import getaddrinfo  # which is there where loops are: others read this to describe it

        found = await getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys(str(where[0]) for *_kind, where in found)
        allowed = [text for text in addresses if not self.blocks(ipaddress.ip_address(text.partition("%")[0]))]
        if not allowed:
            raise Prohibited(f"{host} is in a network that the runtime configuration blocks")
        return allowed


def _is_public(address: Address) -> bool:
    """Returns whether an address is for everybody: one of a site (fec0::/10) is not, though it is deprecated."""
    site = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not address.is_multicast and not site


def _behind(address: Address) -> Iterator[Address]:
    """Yield the addresses that one leads to, or may: that of none is loopback's, one of IPv6 may have one of IPv4."""
    if address.is_unspecified:
        yield ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in network for network in _LAST_BITS):
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.sixtofour is not None:
            yield address.sixtofour
