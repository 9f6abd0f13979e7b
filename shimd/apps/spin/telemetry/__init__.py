"""What is told of an application's work to who watches it, by OpenTelemetry: nothing, unless its variables say where.

:class:`Telemetry` is the one seam: what is to be watched goes through it when the application is put together, and
comes back as it is where nothing is told. What tells is in modules that only such applications load.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from shimd.apps.calls import report_error
from shimd.component.providers import Function
from shimd.otlp import protocols
from shimd.wasi.http.in_process import AsgiApplication
from shimd.wasi.http.outgoing import Sender

if TYPE_CHECKING:
    from shimd.apps.spin.model import Application
    from shimd.wasi.trust import Trust

Call = Callable[..., Coroutine[Any, Any, Any]]
"""Calls a component by a trigger."""


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
