"""Namespaces of a container (config-linux.md, "Namespaces"): made or joined, and what is set up in new ones."""

import fcntl
import socket
import struct
from collections.abc import Iterable

from shimd.errors import InvalidArgument, Unimplemented, reason
from shimd.linux import libc
from shimd.linux.namespaces import KINDS, join
from shimd.oci import Namespace, Spec

# <linux/sockios.h>, <linux/if.h>
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def enter_namespaces(kinds: list[Namespace], spec: Spec) -> None:
    """Join and make those, and set up what was made: the loopback device, the host's name."""
    made = enter(kinds)
    if "network" in made:
        _loopback_up()
    if "uts" in made:
        _name_host(spec)


def _name_host(spec: Spec) -> None:
    if hostname := spec.get("hostname"):
        socket.sethostname(hostname)
    if domain := spec.get("domainname"):
        libc.setdomainname(domain)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = bytearray(struct.pack("16sh22x", b"lo", 0))
        fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
        flags = struct.unpack_from("h", request, 16)[0]
        struct.pack_into("h", request, 16, flags | _IFF_UP)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, request)


def enter(namespaces: Iterable[Namespace]) -> set[str]:
    """Join those with a path, make those without; the pid namespace is the fork server's affair, a time namespace
    the process's own (:mod:`shimd.isolation.time_namespace`), and a user namespace a native container's.
    Returns the kinds made.

    The mount namespace is always a new one, unless it is joined.

    :raises InvalidArgument: a kind is unknown, or a path is not such a namespace
    """
    flags, made, joined = 0, {"mount"}, set()
    for namespace in namespaces:
        kind, path = namespace["type"], namespace.get("path")
        if kind in ("pid", "time", "user"):
            continue
        flag, _name = known(kind)
        if path:
            _join(kind, path, flag)
            joined.add(kind)
        else:
            flags |= flag
            made.add(kind)
    if "mount" not in joined:
        flags |= libc.CLONE_NEWNS
    libc.unshare(flags)
    return made - joined


def known(kind: str) -> tuple[int, str]:
    """Returns a namespace kind's ``CLONE_NEW…`` flag, and its name under /proc/PID/ns.

    :raises Unimplemented: not for WebAssembly containers
    :raises InvalidArgument: there is no such kind
    """
    if kind == "user":
        raise Unimplemented("user namespaces are not supported for WebAssembly containers")
    try:
        return KINDS[kind]
    except KeyError:
        raise InvalidArgument(f"namespace type {kind} is not known") from None


def _join(kind: str, path: str, flag: int) -> None:
    try:
        join(path, flag)
    except OSError as error:
        raise InvalidArgument(f"{kind} namespace {path} cannot be joined: {reason(error)}") from error
