"""A server's certificate by an authority that nobody else knows."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """Files, in PEM."""

    authority: Path
    certificate: Path
    key: Path

    def server(self, clients: "Certificates | None" = None) -> ssl.SSLContext:
        """The server's context.

        :param clients: by whose authority a client's certificate must be; nobody else is let in
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients.authority)
        return context


def made(directory: Path, name: str, curve: str = "prime256v1") -> Certificates:
    """:param name: the server's, as in ``subjectAltName``
    :param curve: of the keys
    """

    def openssl(*words: str) -> None:
        done = subprocess.run(["openssl", *words], cwd=directory, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr

    key = ("-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-nodes", "-days", "2")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    names = ("-subj", "/CN=server", "-addext", f"subjectAltName={name}", "-addext", "basicConstraints=CA:false")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key")
    openssl("req", "-x509", *key, "-keyout", "key.pem", "-out", "cert.pem", *signed, *names)
    return Certificates(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")


def both(directory: Path, curve: str = "prime256v1") -> tuple[Certificates, Certificates]:
    """A server's, of 127.0.0.1, and a client's, by authorities of their own.

    :param curve: of the client's keys
    """
    for name in ("server", "client"):
        (directory / name).mkdir()
    return made(directory / "server", "IP:127.0.0.1"), made(directory / "client", "DNS:client.test", curve)
