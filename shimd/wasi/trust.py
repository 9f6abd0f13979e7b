"""Whose certificates are trusted: the container's, by the variables and files its programs go by, else built-in ones.

As of the native host (``native/wasmtime/src/trust.rs``).
"""

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TypeVar

#: Of Debian, Alpine and what SpinKube mounts; Red Hat; SUSE; Alpine, again.
_USUAL = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----", re.ASCII)


class BuiltIn:
    """Mozilla's certificates: made where the node's files are in sight, once for all apps."""

    def __init__(self) -> None:
        import certifi

        self.pem = certifi.contents()
        self.context = _context(self.pem, ssl.SSLContext)


class Trust:
    """An app's. Made anywhere; what it has is asked for inside the container, when it is first needed."""

    def __init__(self, built_in: BuiltIn, env: Mapping[str, str]) -> None:
        self._built_in, self._env = built_in, env

    @cached_property
    def pem(self) -> str:
        """The certificates; none: nobody is trusted."""
        return self._built_in.pem if self._own is None else self._own

    @cached_property
    def context(self) -> ssl.SSLContext:
        return self._built_in.context if self._own is None else _context(self._own, ssl.SSLContext)

    @property
    def built_in(self) -> str:
        """Mozilla's certificates, whatever the container has."""
        return self._built_in.pem

    def named(self, host: str) -> ssl.SSLContext:
        """A context for a connection to an address, where the certificate has to be that of ``host``."""
        context = _context(self.pem, _Named)
        context.host = host
        return context

    @cached_property
    def _own(self) -> str | None:
        """The container's; ``None``: it has none, and does not say that it had."""
        file, directories = self._env.get("SSL_CERT_FILE"), self._env.get("SSL_CERT_DIR")
        if file or directories:
            return "".join(_named(file, directories))
        return next(filter(None, map(_certificates, map(Path, _USUAL))), None)


def _named(file: str | None, directories: str | None) -> Iterator[str]:
    """As OpenSSL has it, but that files of a directory may have any name."""
    if file:
        yield _certificates(Path(file))
    for directory in (directories or "").split(":"):
        if directory:
            yield from map(_certificates, _files(Path(directory)))


def _files(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _certificates(file: Path) -> str:
    """What is a certificate of a file; nothing, if it cannot be read."""
    try:
        text = file.read_text(errors="replace") if file.is_file() else ""
    except OSError:
        return ""
    return "".join(f"{found}\n" for found in _CERTIFICATE.findall(text))


class _Named(ssl.SSLContext):
    """For libraries that take the address that they connect to for the name in the certificate."""

    host: str

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, self.host, session)

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        how = (server_side, do_handshake_on_connect, suppress_ragged_eofs)
        return super().wrap_socket(sock, *how, self.host, session)


C = TypeVar("C", bound=ssl.SSLContext)


def _context(pem: str, kind: type[C]) -> C:
    context = kind(ssl.PROTOCOL_TLS_CLIENT)
    add(context, pem)
    return context


def add(context: ssl.SSLContext, pem: str) -> None:
    """Have a context trust certificates, besides those that it does."""
    try:
        if pem:
            context.load_verify_locations(cadata=pem)
    except ssl.SSLError:  # one of them is none: the others count
        for one in _CERTIFICATE.findall(pem):
            with suppress(ssl.SSLError):
                context.load_verify_locations(cadata=one)
