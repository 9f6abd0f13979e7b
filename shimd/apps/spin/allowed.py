"""The hosts that a component may connect to: ``allowed_outbound_hosts`` (https://spinframework.dev/http-outbound)."""

import ipaddress
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from shimd.apps.spin.fields import ManifestTable
from shimd.engine import InvalidSetting

#: Of schemes, if none is named.
PORTS = {
    "http": 80,
    "https": 443,
    "redis": 6379,
    "rediss": 6379,
    "mysql": 3306,
    "postgres": 5432,
    "postgresql": 5432,
    "mqtt": 1883,
    "mqtts": 8883,
}
#: The application itself; the second for libraries that will have a dot in a host.
SELF = frozenset({"self", "self.alt"})
#: Below it each component has a name.
CHAINED = ".spin.internal"
_ENTRY = re.compile(
    r"(?P<scheme>[A-Za-z]+|\*)://"
    r"(?P<host>\*|\*\.[^:/*\[\]]+|\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f:.]+/\d+|[^:/*\[\]{},@\s]+)(:(?P<port>\*|[\d.]*))?/?\Z"
)
#: What may be left of an entry whose variable is empty: an address that the application can do without.
_NOTHING = frozenset({"", "http://", "https://"})

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class AllowedHost:
    """One entry."""

    scheme: str
    host: str
    """A name or an address, ``*``, or ``*.`` and a domain; empty for a network."""
    ports: range | None
    """``None``: any."""
    network: Network | None = None

    @classmethod
    def parse(cls, text: str, where: str) -> "AllowedHost":
        """:raises InvalidSetting: it is no such entry"""
        if text == "insecure:allow-all":
            raise InvalidSetting(f'{where} has "{text}", which nobody takes any more: *://*:* allows everything')
        found = _ENTRY.match(text.strip())
        if found is None:
            raise InvalidSetting(f'{where} has "{text}", which is not SCHEME://HOST[:PORT]')
        scheme, host, port = found["scheme"].lower(), found["host"].lower(), found["port"]
        if not port and scheme not in PORTS:
            raise InvalidSetting(f'{where} has "{text}", which needs a port')
        ports = _ports(port or str(PORTS[scheme]), text, where)
        if "/" not in host:
            return cls(scheme, host.strip("[]"), ports)
        try:
            return cls(scheme, "", ports, ipaddress.ip_network(host, strict=False))
        except ValueError as error:
            raise InvalidSetting(f'{where} has "{text}", whose network is none: {error}') from None

    def matches(self, scheme: str, host: str, port: int) -> bool:
        return (
            self.scheme in ("*", scheme) and self._has(host.strip("[]")) and (self.ports is None or port in self.ports)
        )

    def _has(self, host: str) -> bool:
        """A network has addresses, and no names: where those lead may change."""
        if self.network is not None:
            return (address := _address(host)) is not None and address in self.network
        return self.host in ("*", host) or (self.host.startswith("*.") and host.endswith(self.host[1:]))

    @property
    def is_self(self) -> bool:
        """Whether requests to the application itself are allowed."""
        return self.host == "*" or self.host in SELF


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _ports(text: str, entry: str, where: str) -> range | None:
    if text == "*":
        return None
    first, _, last = text.partition("..")
    try:
        found = range(int(first), int(last) if last else int(first) + 1)
    except ValueError:
        raise InvalidSetting(f'{where} has "{entry}", whose port is none') from None
    if not found or found.stop > 1 << 16:
        raise InvalidSetting(f'{where} has "{entry}", whose port is none')
    return found


class AllowedHosts:
    """The check of outgoing requests of one component."""

    def __init__(self, entries: Sequence[str], where: str) -> None:
        self.where = where
        """Manifest and field, for messages."""
        self.entries: list[AllowedHost] = []
        self.add(entries)

    def add(self, entries: Sequence[str]) -> None:
        """Allow more.

        :raises InvalidSetting: one is no such entry
        """
        self.entries += [AllowedHost.parse(entry, self.where) for entry in entries]

    def __call__(self, scheme: str, authority: str) -> None:
        """:raises Err: ``HTTP-request-denied``"""
        from shimd.wasi.http.outgoing import DENIED  # which is there where requests are

        host, port = split(scheme, authority)
        if not self.allows(scheme, host, port):
            raise DENIED

    def allows(self, scheme: str, host: str, port: int) -> bool:
        host = host.lower()
        return host not in SELF and any(allowed.matches(scheme, host, port) for allowed in self.entries)

    def allows_self(self) -> bool:
        """Returns whether requests to the application itself are allowed, whatever its address."""
        return any(allowed.is_self and allowed.scheme in ("*", "http", "https") for allowed in self.entries)

    def may_ever(self, *schemes: str) -> bool:
        """Returns whether any host may be connected to by one of those protocols."""
        return any(allowed.scheme in ("*", *schemes) for allowed in self.entries)

    def chained(self) -> Collection[str]:
        """Returns the components of the application that are named, each by itself."""
        hosts = [allowed.host for allowed in self.entries if allowed.host.endswith(CHAINED)]
        return [host.removesuffix(CHAINED) for host in hosts if not host.startswith("*")]


def neighbour(entry: str) -> str:
    """Returns the component that an entry names by itself, ``*`` for all; empty: none, or a template says which."""
    found = _ENTRY.match(entry.strip())
    host = found["host"].lower() if found else ""
    return host.removesuffix(CHAINED) if host.endswith(CHAINED) else ""


def split(scheme: str, authority: str) -> tuple[str, int]:
    """Returns host and port of an address without a scheme."""
    host, colon, port = authority.rpartition(":")
    if colon and port.isdigit():
        return host.lower(), int(port)
    return authority.lower(), PORTS[scheme]


def is_left_out(entry: str, resolved: str) -> bool:
    """Returns whether an entry allows nothing, since it is of a variable that is empty."""
    return entry != resolved and resolved in _NOTHING


def of_http_hosts(table: ManifestTable) -> Iterator[str]:
    """Yield the entries that ``allowed_http_hosts`` means: hosts for HTTP and HTTPS, with a port or the usual ones.

    :raises InvalidSetting: one is no host
    """
    hosts = table.strings("allowed_http_hosts")
    if "insecure:allow-all" in hosts:
        yield from ("http://*:*", "https://*:*", "http://self")
        return
    for host in hosts:
        parts = urlsplit(host if "//" in host else f"http://{host}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or "*" in host:
            raise table.wrong("allowed_http_hosts", f'has "{host}", which is not HOST[:PORT]')
        if parts.hostname == "self":
            yield "http://self"
        else:
            yield from (f"{scheme}://{parts.netloc}" for scheme in ("http", "https"))
