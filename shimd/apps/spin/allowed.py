"""The hosts that a component may connect to: ``allowed_outbound_hosts`` (https://spinframework.dev/http-outbound)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from shimd.engine import InvalidSetting
from shimd.wasi.http.outgoing import DENIED

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
_PATTERN = re.compile(
    r"(?P<scheme>[a-z+*]+)://(?P<host>\*|\*\.[^:/*]+|\[[0-9a-fA-F:]+\]|[^:/*\[\]]+)(:(?P<port>\*|[\d.]+))?/?\Z"
)


@dataclass(frozen=True)
class AllowedHost:
    """One entry."""

    scheme: str
    host: str
    ports: range | None
    """``None``: any."""

    @classmethod
    def parse(cls, text: str, where: str) -> "AllowedHost":
        """:raises InvalidSetting: it is no such entry"""
        found = _PATTERN.match(text)
        if found is None:
            raise InvalidSetting(f'{where} has "{text}", which is not SCHEME://HOST[:PORT]')
        scheme, port = found["scheme"], found["port"]
        if port is None and scheme not in PORTS:
            raise InvalidSetting(f'{where} has "{text}", which needs a port')
        return cls(scheme, found["host"].lower().strip("[]"), _ports(port or str(PORTS[scheme]), text, where))

    def matches(self, scheme: str, host: str, port: int) -> bool:
        return (
            self.scheme in ("*", scheme)
            and (self.host in ("*", host) or (self.host.startswith("*.") and host.endswith(self.host[1:])))
            and (self.ports is None or port in self.ports)
        )


def _ports(text: str, entry: str, where: str) -> range | None:
    if text == "*":
        return None
    first, _, last = text.partition("..")
    try:
        return range(int(first), int(last) if last else int(first) + 1)
    except ValueError:
        raise InvalidSetting(f'{where} has "{entry}", whose port is none') from None


class AllowedHosts:
    """The check of outgoing requests of one component."""

    def __init__(self, entries: Sequence[str], where: str) -> None:
        self._allowed = [AllowedHost.parse(entry, where) for entry in entries]

    def __call__(self, scheme: str, authority: str) -> None:
        """:raises Err: ``HTTP-request-denied``"""
        host, port = _address(scheme, authority)
        if not self.allows(scheme, host, port):
            raise DENIED

    def allows(self, scheme: str, host: str, port: int) -> bool:
        return any(allowed.matches(scheme, host.lower().strip("[]"), port) for allowed in self._allowed)

    def may_ever(self, *schemes: str) -> bool:
        """Returns whether any host may be connected to by one of those protocols."""
        return any(allowed.scheme in ("*", *schemes) for allowed in self._allowed)


def _address(scheme: str, authority: str) -> tuple[str, int]:
    host, colon, port = authority.rpartition(":")
    if colon and port.isdigit():
        return host.lower(), int(port)
    return authority.lower(), PORTS[scheme]
