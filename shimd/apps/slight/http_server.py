"""``http-server``: what the guest's ``on-server-init`` says of routes and address."""

import socket
from collections.abc import Collection
from dataclasses import dataclass, replace

from shimd.apps.http.server import listen
from shimd.apps.slight.backend import fail
from shimd.apps.slight.routes import SlightRoute
from shimd.engine import EngineError
from shimd.engines.http_settings import HttpSettings

#: Where no port is named.
_PORT = 80


@dataclass(frozen=True)
class Router:
    """Routes of a server; immutable: adding one makes another router."""

    routes: tuple[SlightRoute, ...] = ()

    def get(self, route: str, handler: str) -> "Router":
        return self._with("GET", route, handler)

    def put(self, route: str, handler: str) -> "Router":
        return self._with("PUT", route, handler)

    def post(self, route: str, handler: str) -> "Router":
        return self._with("POST", route, handler)

    def delete(self, route: str, handler: str) -> "Router":
        return self._with("DELETE", route, handler)

    def _with(self, method: str, path: str, handler: str) -> "Router":
        if not path.startswith("/"):
            fail("invalid-url", f"the route {path!r} of {handler} does not begin with a slash")
        return Router((*self.routes, SlightRoute(method, path, handler)))


@dataclass
class GuestServer:
    """A listening socket with its routes. Requests are served once ``on-server-init`` has returned."""

    listener: socket.socket
    routes: tuple[SlightRoute, ...]
    stopped: bool = False

    def stop(self) -> None:
        self.stopped = True
        self.listener.close()


class HttpServerProvider:
    """Provides ``http-server`` to guests, and keeps the server that one has started."""

    def __init__(self, settings: HttpSettings, address: str | None, exports: Collection[str]) -> None:
        """:param address: to be listened at, whatever the guest says
        :param exports: functions of the module
        """
        self.settings = settings
        self._address = address
        self._exports = exports
        self.server: GuestServer | None = None
        self.initialised = False

    def router_new(self) -> Router:
        return Router()

    def router_new_with_base(self, base: str) -> Router:
        """Make a router. The base is ignored, as by Slight's own host."""
        return Router()

    def server_serve(self, address: str, router: Router) -> GuestServer:
        """:raises EngineError: a handler is missing, or the address cannot be had: nothing could be served"""
        if self.initialised:
            fail("unexpected-error", "servers are started by on-server-init only")
        if self.server is not None and not self.server.stopped:
            fail("unexpected-error", "an application has one server")
        for route in router.routes:
            if route.export not in self._exports:
                raise EngineError(
                    f"the module exports no function {route.export} to handle {route.method} {route.path}"
                )
        host, port = parsed(self._address or address)
        self.server = GuestServer(listen(replace(self.settings, host=host, port=port)), router.routes)
        return self.server


def parsed(address: str) -> tuple[str, int]:
    """Parse ``HOST:PORT``, or a host only (port 80)."""
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        return address.strip("[]"), _PORT
    if not port.isdigit() or int(port) > 65535:
        fail("invalid-url", f"{address} is not HOST:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)
