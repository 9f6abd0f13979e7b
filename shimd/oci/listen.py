"""Listening sockets that an app is given: the annotation ``shimd.io/listen``, e.g. ``tcp:8080``."""

import ipaddress
import re
from typing import NamedTuple

from shimd import oci
from shimd.errors import InvalidArgument

ANNOTATION = "shimd.io/listen"
#: A container's name in its pod (containerd: pkg/cri/annotations).
_CONTAINER = "io.kubernetes.cri.container-name"
_FORM = re.compile(r"tcp:(?:(?:(?P<v4>[^:\[\]]+)|\[(?P<v6>[^\[\]]+)\]):)?(?P<port>[0-9]{1,5})")


class Address(NamedTuple):
    """The address at which a TCP socket listens."""

    host: str
    """An IP address; empty: all of them."""
    port: int


def wanted(spec: oci.Spec) -> list[Address]:
    """Returns the addresses that annotations ask for. In a pod they are those of all its containers, so that
    ``shimd.io/listen.NAME`` is for the one of that name.

    :raises InvalidArgument: the value is not a list of addresses
    """
    annotations = spec.get("annotations") or {}
    own = f"{ANNOTATION}.{annotations.get(_CONTAINER)}"
    name = own if own in annotations else ANNOTATION
    return parse(annotations.get(name, ""), f"annotation {name}")


def parse(text: str, where: str) -> list[Address]:
    """``tcp:PORT`` or ``tcp:ADDRESS:PORT``, several with commas between.

    :raises InvalidArgument: ``where`` names what was read
    """
    return [_address(item.strip(), where) for item in text.split(",") if item.strip()]


def _address(text: str, where: str) -> Address:
    found = _FORM.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 1 << 16:
        raise InvalidArgument(f"{where}: {text!r} is not of the form tcp:PORT or tcp:ADDRESS:PORT")
    address = found["v4"] or found["v6"] or ""
    try:
        return Address(str(ipaddress.ip_address(address)) if address else "", int(found["port"]))
    except ValueError:
        raise InvalidArgument(f"{where}: {address!r} in {text!r} is not an IP address") from None
