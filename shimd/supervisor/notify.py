"""Talking to who started the daemon, systemd or a launcher: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3)."""

import functools
import os
import socket
from contextlib import suppress

_FIRST_FD = 3


def ready() -> None:
    """Tell systemd that all sockets are bound: units ordered after this one may start, a waiting launcher may ask."""
    notify(READY="1")


def notify(**fields: str) -> None:
    """Send ``KEY=value`` lines to ``NOTIFY_SOCKET``, a path or an abstract name (``@…``).

    Does nothing without one, or when nobody listens there any more: a launcher leaves once it has seen ``READY=1``.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = "\n".join(f"{key}={value}" for key, value in fields.items()).encode()
    with suppress(OSError):
        _socket().sendto(message, address)


@functools.cache
def _socket() -> socket.socket:
    """Open from the first word on: one that has no descriptor left must not be taken for one that hangs."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


def watchdog_interval() -> float | None:
    """Seconds within which systemd wants ``WATCHDOG=1``; send it twice as often. ``None`` if it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    usec = os.environ.get("WATCHDOG_USEC", "")
    return int(usec) / 1e6 if usec.isdigit() and int(usec) else None


def listen_fds() -> dict[str, int]:
    """The sockets that systemd hands over, by ``FileDescriptorName=``; of two with one name, the last.

    Close-on-exec afterwards, and gone from the environment, so that no child takes them for its own; a second call
    returns nothing.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    fds = range(_FIRST_FD, _FIRST_FD + int(count))
    for fd in fds:
        os.set_inheritable(fd, False)
    names += ["unknown"] * (len(fds) - len(names))
    return {name or "unknown": fd for name, fd in zip(names, fds, strict=False)}
