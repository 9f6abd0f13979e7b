"""Routes as Slight has them: ``/person/:name``, ``/files/*``. The first that fits wins; a final slash is ignored."""

import re
from dataclasses import dataclass, field

_PLACE = re.compile(r":([^/.]+)|\*")


@dataclass(frozen=True)
class SlightRoute:
    method: str
    """``GET``, ``PUT``, ``POST`` or ``DELETE``"""
    path: str
    handler: str
    """The pattern, as the guest wrote it."""

    @property
    def export(self) -> str:
        """The function that handles it: ``handle_hello`` is exported as ``handle-hello``."""
        return self.handler.replace("_", "-")


@dataclass(frozen=True)
class SlightMatch:
    route: SlightRoute
    params: list[tuple[str, str]] = field(default_factory=list)


class RouteTable:
    def __init__(self, routes: list[SlightRoute]) -> None:
        self._routes = [(route, *_compiled(route.path)) for route in routes]

    def find(self, method: str, path: str) -> SlightMatch | None:
        """:param path: decoded"""
        for route, pattern, names in self._routes:
            if route.method == method and (match := pattern.match(path.rstrip("/"))):
                return SlightMatch(route, list(zip(names, match.groups(), strict=True)))
        return None


def _compiled(path: str) -> tuple[re.Pattern[str], list[str]]:
    names, pattern, end = [], "", 0
    path = "/" + path.strip("/") if path.strip("/") else ""
    for place in _PLACE.finditer(path):
        pattern += re.escape(path[end : place.start()]) + ("([^/]+)" if place[1] else "(.*)")
        names.append(place[1] or "*")
        end = place.end()
    return re.compile(pattern + re.escape(path[end:]) + r"\Z", re.DOTALL), names
