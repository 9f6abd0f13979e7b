"""OpenTelemetry's exporters, as they work inside a container: nothing is left to be loaded or found there."""

import os
import ssl
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from shimd.otlp import GRPC, HTTP, endpoint, limit, said
from shimd.wasi.trust import Trust, add

#: By protocol and signal: the module and the class.
_EXPORTERS = {
    HTTP: {
        "traces": ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "OTLPSpanExporter"),
        "metrics": ("opentelemetry.exporter.otlp.proto.http.metric_exporter", "OTLPMetricExporter"),
        "logs": ("opentelemetry.exporter.otlp.proto.http._log_exporter", "OTLPLogExporter"),
    },
    GRPC: {
        "traces": ("opentelemetry.exporter.otlp.proto.grpc.trace_exporter", "OTLPSpanExporter"),
        "metrics": ("opentelemetry.exporter.otlp.proto.grpc.metric_exporter", "OTLPMetricExporter"),
        "logs": ("opentelemetry.exporter.otlp.proto.grpc._log_exporter", "OTLPLogExporter"),
    },
}
#: What the library of a protocol loads when it is first used.
_LATER = {HTTP: (), GRPC: ("grpc._channel",)}
#: Of gRPC's library: the node's proxies are not the application's, and what goes wrong is told by us.
_CHANNEL = (("grpc.enable_http_proxy", 0),)
_QUIET = {"GRPC_VERBOSITY": "NONE"}
#: What names a plugin, which could not be loaded inside.
_PLUGINS = ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "OTEL_PYTHON_")


def load(protocols: Mapping[str, str]) -> None:
    """Import what is needed for some signals, by their protocols.

    :raises ModuleNotFoundError: it is not installed
    """
    os.environ.update(_QUIET)
    for signal, protocol in protocols.items():
        for module in (_EXPORTERS[protocol][signal][0], *_LATER[protocol]):
            import_module(module)


def adopt(env: Mapping[str, str]) -> None:
    """Have the libraries read an application's variables: those of this process, which runs nothing else, are the
    daemon's."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]
    given = {name: value for name, value in env.items() if name.startswith("OTEL_")}
    os.environ.update({name: value for name, value in given.items() if not name.startswith(_PLUGINS)})


def exporter(signal: str, protocol: str, trust: Trust) -> Any:
    """Make an exporter, which takes all else of :func:`adopt`. Called inside the container."""
    module, name = _EXPORTERS[protocol][signal]
    made = partial(getattr(import_module(module), name), timeout=limit(os.environ, signal))
    if protocol == HTTP:
        return made(session=_session(trust, said(os.environ, signal, "CERTIFICATE")))
    if said(os.environ, signal, "CERTIFICATE"):
        return made(channel_options=_CHANNEL)
    import grpc

    key, shown = (_read(said(os.environ, signal, what)) for what in ("CLIENT_KEY", "CLIENT_CERTIFICATE"))
    secure = endpoint(os.environ, signal).lower().startswith("https:")
    credentials = grpc.ssl_channel_credentials(trust.pem.encode(), key, shown) if secure else None
    return made(credentials=credentials, channel_options=_CHANNEL)


def _read(file: str) -> bytes | None:
    return Path(file).read_bytes() if file else None


def _session(trust: Trust, own: str) -> requests.Session:
    """:param own: a file of certificates that counts in place of the application's; empty: none"""
    session = requests.Session()
    session.trust_env = False  # proxies and passwords of the node
    if not own:
        session.mount("https://", _Trusting(trust))
    return session


class _Trusting(HTTPAdapter):
    """Trusts whom the application does. The library's own certificates are a file, which is out of sight."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, ssl_context=_copy(self._trust), **more)

    def cert_verify(self, connection: Any, url: Any, verify: Any, cert: Any) -> None:
        super().cert_verify(connection, url, False, cert)
        connection.cert_reqs = "CERT_REQUIRED"


def _copy(trust: Trust) -> ssl.SSLContext:
    """Returns a context of its own, since the library may change it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    add(context, trust.pem)
    return context
