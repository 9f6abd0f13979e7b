"""TLS configurations of components' own, for outbound HTTP: ``[[client_tls]]`` of ``/runtime-config.toml``."""

import os
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from shimd.apps.spin.fields import ManifestTable
from shimd.apps.spin.place import Place
from shimd.linux.memory_file import memory_file
from shimd.wasi.trust import Trust, add


@dataclass(frozen=True)
class ClientTls:
    """How some components connect to some hosts by HTTPS. The first that fits counts."""

    components: tuple[str, ...]
    hosts: tuple[str, ...]
    given: ssl.SSLContext
    """With what the container's files hold: certificates to trust, and one to show."""
    platform: bool
    """Whether the container's certificates are trusted, too."""
    webpki: bool
    """Whether those of browsers are."""
    roots: bytes = b""
    """Certificates to trust, in PEM; and one to show, with its key."""
    certificate: bytes = b""
    key: bytes = b""

    def context(self, trust: Trust) -> ssl.SSLContext:
        """Called inside the container; as often as somebody likes."""
        for wanted, pem in ((self.platform, trust.pem), (self.webpki, trust.built_in)):
            if wanted:
                add(self.given, pem)
        return self.given


def contexts(tls: Sequence[ClientTls], component: str, trust: Trust) -> Mapping[str, Callable[[], ssl.SSLContext]]:
    """Returns what makes the TLS contexts of the hosts for which a component has its own."""
    found: dict[str, Callable[[], ssl.SSLContext]] = {}
    for one in tls:
        for host in one.hosts if component in one.components else ():
            found.setdefault(host, partial(one.context, trust))
    return found


def parse(table: ManifestTable, place: Place, components: Collection[str]) -> ClientTls:
    """:param components: the application's

    :raises InvalidSetting: what is wrong, and where
    """
    for name in ("component_ids", "hosts"):
        if not table.strings(name):
            raise table.wrong(name, "is missing, or empty")
    for id in table.strings("component_ids"):
        if id not in components:
            raise table.wrong("component_ids", f"names {id!r}, which is no component")
    for host in table.strings("hosts"):
        if not host or set(host) & set("/:*@ "):
            raise table.wrong("hosts", f'has "{host}", which is no name of a host')
    roots, webpki = table.text("ca_roots_file", ""), table.flag("ca_use_webpki_roots")
    platform = table.flag("ca_use_platform_roots", not roots and "ca_use_webpki_roots" not in table.values)
    if not (roots or platform or webpki):
        raise table.wrong("", "trusts nobody: it has no ca_roots_file, and no other certificates are to count")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    pem = _trust(context, table, place) if roots else b""
    shown = _show(context, table, place)
    hosts = tuple(host.lower() for host in table.strings("hosts"))
    return ClientTls(table.strings("component_ids"), hosts, context, platform, webpki, pem, *shown)


def _trust(context: ssl.SSLContext, table: ManifestTable, place: Place) -> bytes:
    pem = _file(table, "ca_roots_file", place)
    try:
        context.load_verify_locations(cadata=pem.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError):
        raise table.wrong("ca_roots_file", f"names {table.text('ca_roots_file')}, which has no certificates") from None
    return pem


def _show(context: ssl.SSLContext, table: ManifestTable, place: Place) -> tuple[bytes, bytes]:
    """Have a client certificate shown to servers that ask for one, if there is any; returns it, and its key."""
    names = ("client_cert_file", "client_private_key_file")
    for name, other in (names, names[::-1]):
        if name in table.values and other not in table.values:
            raise table.wrong(other, f"is missing, and {name} is there")
    if names[0] not in table.values:
        return b"", b""
    shown = _file(table, names[0], place), _file(table, names[1], place)
    files = [memory_file("shimd-tls", data) for data in shown]
    try:  # the library reads files only, and the container's are not at their places yet
        certificate, key = (f"/proc/self/fd/{fd}" for fd in files)
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError):
        what = f"({table.text(names[0])}) and {names[1]} ({table.text(names[1])}) are no certificate and its key"
        raise table.wrong(names[0], what) from None
    finally:
        for fd in files:
            os.close(fd)
    return shown


def _file(table: ManifestTable, name: str, place: Place) -> bytes:
    path = table.text(name)
    data = place.file(path)
    if data is None:
        raise table.wrong(name, f"names {path}, which does not exist")
    return data
