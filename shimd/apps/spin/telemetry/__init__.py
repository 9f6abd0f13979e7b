"""What is told of an application's work to who watches it, by OpenTelemetry: nothing, unless its variables say where.

:class:`Telemetry` is the one seam: what is to be watched goes through it when the application is put together, and
comes back as it is where nothing is told. What tells is in modules that only such applications load.
"""

import re
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from shimd.apps.calls import report_error
from shimd.component.providers import Function
from shimd.engine import InvalidSetting
from shimd.wasi.http.in_process import AsgiApplication
from shimd.wasi.http.outgoing import Sender

if TYPE_CHECKING:
    from shimd.apps.spin.model import Application
    from shimd.wasi.trust import Trust

Call = Callable[..., Coroutine[Any, Any, Any]]
"""Calls a component by a trigger."""
#: What can be told, each with an endpoint and a protocol of its own if need be.
SIGNALS = ("traces", "metrics", "logs")
HTTP, GRPC = "http/protobuf", "grpc"
_EVERY = "OTEL_EXPORTER_OTLP"
_URL = re.compile(r"https?://[^/?#\s]+", re.IGNORECASE)
#: A header as a variable has it: what both protocols can send, and OpenTelemetry's library takes.
_HEADER = re.compile(r"[\w.-]+ *= *[ !#-:<-\[\]-~]*", re.ASCII)


class Telemetry:
    """Tells nothing. ``async with`` it, around all that the application does."""

    async def __aenter__(self) -> "Telemetry":
        return self

    async def __aexit__(self, *_exception: Any) -> None:
        return None

    def server(self, server: AsgiApplication) -> AsgiApplication:
        """Watch the requests of clients."""
        return server

    def component(self, id: str, handler: AsgiApplication) -> AsgiApplication:
        """Watch the requests that a component answers: those of clients, and of its neighbours."""
        return handler

    def call(self, trigger: str, id: str, source: str, call: Call) -> Call:
        """Watch a component's calls by a trigger.

        :param source: the channel or the topic, if it has one
        """
        return call

    def function(self, interface: str, name: str, function: Function) -> Function:
        """Watch a function that components import."""
        return function

    def sender(self, sender: Sender) -> Sender:
        """Watch what sends one request of a component to another server."""
        return sender

    def headers(self) -> Mapping[str, str]:
        """Returns the headers by which another server knows what its work belongs to."""
        return {}

    def streams(self, id: str) -> Mapping[str, object]:
        """Returns the providers of a component's streams that are watched, by interface."""
        return {}


class Untold(Telemetry):
    """Tells nothing, and why, in the application's log: what is only watched goes on unwatched."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def __aenter__(self) -> Telemetry:
        report_error("", self._reason)
        return self


def protocols(env: Mapping[str, str]) -> dict[str, str]:
    """Returns the protocol of each signal that is to be told, by what an application's variables say.

    :raises InvalidSetting: there is no such protocol, or no such endpoint; or a header cannot be sent
    """
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return {}
    told = {signal: _protocol(env, signal) for signal in SIGNALS if endpoint(env, signal)}
    for signal in told:
        _check_headers(*_first(env, signal, "HEADERS"))
    return told


def endpoint(env: Mapping[str, str], signal: str) -> str:
    """Returns the URL that a signal is told to; empty: it is not."""
    return _first(env, signal, "ENDPOINT")[1]


def _protocol(env: Mapping[str, str], signal: str) -> str:
    name, value = _first(env, signal, "ENDPOINT")
    if not _URL.match(value):
        raise InvalidSetting(f"{name} is no address: http://HOST[:PORT] or https://HOST[:PORT] is meant")
    name, value = _first(env, signal, "PROTOCOL")
    if value and value not in (HTTP, GRPC):
        raise InvalidSetting(f"{name}={value} is neither {HTTP} nor {GRPC}")
    return value or HTTP


def _check_headers(name: str, value: str) -> None:
    """Headers are secrets, often, and the libraries' errors have those that cannot be sent."""
    for number, header in enumerate(value.split(","), 1):
        text = header.strip()
        decoded = unquote(text)
        if text and not (_HEADER.fullmatch(text) and decoded.isascii() and decoded.isprintable()):
            raise InvalidSetting(
                f'header {number} of {name} is not NAME=VALUE, in letters that can be sent ("," is %2C)'
            )


def _first(env: Mapping[str, str], signal: str, what: str) -> tuple[str, str]:
    """Returns the name and the value of the variable that counts for a signal."""
    names = (f"{_EVERY}_{signal.upper()}_{what}", f"{_EVERY}_{what}")
    return next(((name, env[name]) for name in names if env.get(name)), ("", ""))


def telemetry(env: Mapping[str, str], application: "Application", trust: "Trust") -> Telemetry:
    """Returns what tells of an application as its variables say. Called before the container is entered.

    :raises InvalidSetting: a variable is wrong
    """
    told = protocols(env)
    if not told:
        return Telemetry()
    try:
        from shimd.apps.spin.telemetry.otlp import Otlp

        return Otlp(told, env, application, trust)
    except ModuleNotFoundError as error:
        return Untold(
            f"telemetry is not sent: this node has no Python package {error.name} (pip install 'shimd[otel]')"
        )
