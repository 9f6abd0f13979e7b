"""Settings of an HTTP app, from its environment: the wasmtime shim's variables, and our own. None reaches the guest."""

from collections.abc import Mapping
from dataclasses import dataclass

from shimd.engine import InvalidSetting

_ADDRESS = "WASMTIME_HTTP_PROXY_SOCKET_ADDR"
_BACKLOG = ("WASMTIME_HTTP_PROXY_BACKLOG", "WASMTIME_HTTP_BACKLOG")
_OURS = tuple(
    f"SHIMD_HTTP_{name}"
    for name in ("ACCESS_LOG", "CONCURRENCY", "GRACE", "IDLE", "POOL", "PROCESSES", "REUSE", "TIMEOUT")
)
NAMES = frozenset({_ADDRESS, *_BACKLOG, *_OURS})


@dataclass(frozen=True)
class HttpSettings:
    host: str = "0.0.0.0"
    port: int = 8080
    backlog: int = 128
    """Connections that wait to be accepted."""
    timeout: float = 60.0
    """Seconds until a guest must have answered (status and headers); 0: for ever."""
    concurrency: int = 64
    """Requests that are in guests at a time; more wait."""
    pool: int = 2
    """Instances made ahead of the requests for them."""
    grace: float = 25.0
    """Seconds for requests under way once the app is told to end; the kubelet grants 30."""
    processes: int = 1
    """Number of server processes, to use more than one core; each has a pool of its own."""
    access_log: bool = False
    reuse: int = 128
    """Requests that an instance of WASI 0.3 has; 1: a fresh one for each."""
    announced: bool = False
    """Whether the address is told of on stderr, for somebody who sits before it."""
    idle: float = 75.0
    """Seconds for which a connection may have no request under way; the native host has one read within two of them."""

    @classmethod
    def of(cls, environment: Mapping[str, str], default_address: str = "0.0.0.0:8080") -> "HttpSettings":
        """:raises InvalidSetting: a value is not of its kind"""
        host, port = _address(environment.get(_ADDRESS) or default_address)
        backlog = next((environment[name] for name in _BACKLOG if environment.get(name)), None)
        return cls(
            host=host,
            port=port,
            backlog=_number(_BACKLOG[0], backlog, cls.backlog, 1),
            timeout=_number("SHIMD_HTTP_TIMEOUT", environment.get("SHIMD_HTTP_TIMEOUT"), cls.timeout, 0),
            concurrency=_number("SHIMD_HTTP_CONCURRENCY", environment.get("SHIMD_HTTP_CONCURRENCY"), 64, 1),
            pool=_number("SHIMD_HTTP_POOL", environment.get("SHIMD_HTTP_POOL"), cls.pool, 0),
            grace=_number("SHIMD_HTTP_GRACE", environment.get("SHIMD_HTTP_GRACE"), cls.grace, 0),
            processes=_number("SHIMD_HTTP_PROCESSES", environment.get("SHIMD_HTTP_PROCESSES"), 1, 1),
            idle=_number("SHIMD_HTTP_IDLE", environment.get("SHIMD_HTTP_IDLE"), cls.idle, 1),
            reuse=_number("SHIMD_HTTP_REUSE", environment.get("SHIMD_HTTP_REUSE"), cls.reuse, 1),
            access_log=environment.get("SHIMD_HTTP_ACCESS_LOG", "").lower() in ("1", "true", "yes", "on"),
        )


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 <= int(port) < 65536:
        raise InvalidSetting(f"{_ADDRESS}={text} is not HOST:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)


def _number(name: str, text: str | None, default: float, least: int) -> int:
    """:raises InvalidSetting: it is none, or less than ``least``"""
    if not text:
        return int(default)
    if not text.isdigit() or int(text) < least:
        raise InvalidSetting(f"{name}={text} is not a number of at least {least}")
    return int(text)


def for_guest(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the part of the container's environment that a guest sees."""
    return {name: value for name, value in environment.items() if name not in NAMES}
