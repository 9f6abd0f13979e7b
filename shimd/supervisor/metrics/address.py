"""Where metrics are asked for: ``SHIMD_METRICS_ADDR`` and what goes with it."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass

from shimd.errors import InvalidArgument

_UNIX = "unix:"


@dataclass(frozen=True)
class Address:
    """A port of this machine, or a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""
    """Of a Unix socket; empty: it is none."""
    certificate: str = ""
    """A file with the server's certificate; empty: no TLS."""
    key: str = ""
    clients: str = ""
    """A file with the authorities of clients' certificates; empty: anybody may ask."""

    def __str__(self) -> str:
        if self.path:
            return f"{_UNIX}{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.certificate else ''}://{host}:{self.port}/metrics"


def address(env: Mapping[str, str] = os.environ) -> Address | None:
    """Returns where metrics are asked for; ``None``: nowhere.

    :raises InvalidArgument: a variable is wrong, or it would be others' to see what is not encrypted
    """
    text = env.get("SHIMD_METRICS_ADDR", "").strip()
    if not text:
        return None
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if not os.path.isabs(path):
            raise InvalidArgument(
                f"SHIMD_METRICS_ADDR={text}: a socket's path is absolute: unix:/run/shimd/metrics.sock"
            )
        return Address(path=path)
    host, port = _parts(text)
    names = ("SHIMD_METRICS_CERT", "SHIMD_METRICS_KEY", "SHIMD_METRICS_CLIENT_CA")
    certificate, key, clients = (env.get(name, "") for name in names)
    if bool(certificate) != bool(key):
        raise InvalidArgument("SHIMD_METRICS_CERT and SHIMD_METRICS_KEY go together")
    if clients and not certificate:
        raise InvalidArgument("SHIMD_METRICS_CLIENT_CA is of no effect without SHIMD_METRICS_CERT")
    if not certificate and not _is_loopback(host):
        raise InvalidArgument(
            f"SHIMD_METRICS_ADDR={text} is for others than this machine, and takes TLS: SHIMD_METRICS_CERT, _KEY"
        )
    return Address(host, port, certificate=certificate, key=key, clients=clients)


def _parts(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidArgument(f"SHIMD_METRICS_ADDR={text} is neither ADDRESS:PORT nor unix:PATH: 127.0.0.1:9464, say")
    try:
        return str(ipaddress.ip_address(host)), int(port)
    except ValueError:
        if host == "localhost":
            return "127.0.0.1", int(port)
        raise InvalidArgument(f"SHIMD_METRICS_ADDR={text}: {host} is no address of this machine") from None


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback
