"""Routes from paths to components (https://spinframework.dev/http-trigger): exact, ``:name`` segments, ``/...`` last.

The most specific route wins: segment by segment, a literal goes before ``:name``, which goes before ``...``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_WILDCARD = "..."


@dataclass(frozen=True)
class StaticResponse:
    """An answer that takes no component."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True)
class SpinRoute:
    path: str | None
    """``None``: private, nobody outside reaches it."""
    component: str
    """Empty: ``response`` answers."""
    response: StaticResponse | None = None


@dataclass(frozen=True)
class SpinMatch:
    route: SpinRoute
    path_info: str
    """The part of the path that the trailing wildcard matches, from its slash on."""
    named: Mapping[str, str] = field(default_factory=dict)
    """The segments of the path that ``:name`` segments match."""


def find(routes: Iterable[SpinRoute], path: str) -> SpinMatch | None:
    """Find the best match for a request's path (without its query)."""
    found = [(rank, match) for route in routes if (match := matched(route, path)) for rank in [_rank(route)]]
    return max(found, key=lambda item: item[0])[1] if found else None


def matched(route: SpinRoute, path: str) -> SpinMatch | None:
    if route.path is None:
        return None
    wanted, given = _segments(route.path), _segments(path)
    open_ended = wanted[-1:] == [_WILDCARD]
    fixed = wanted[:-1] if open_ended else wanted
    if len(given) < len(fixed) or (len(given) > len(fixed) and not open_ended):
        return None
    named = {}
    for pattern, segment in zip(fixed, given, strict=False):
        if pattern.startswith(":"):
            named[pattern[1:]] = segment
        elif pattern != segment:
            return None
    rest = given[len(fixed) :]
    return SpinMatch(route, "/" + "/".join(rest) if rest else "/" * (open_ended and path.endswith("/")), named)


def _segments(path: str) -> list[str]:
    return [segment for segment in path.strip("/").split("/") if segment]


def _rank(route: SpinRoute) -> list[int]:
    """Returns a key that orders routes, segment by segment. Where one ends, the other has a wildcard, or no match."""
    return [*map(_weight, _segments(route.path or "")), 1]


def _weight(segment: str) -> int:
    if segment == _WILDCARD:
        return 0
    return 1 if segment.startswith(":") else 2


def headers(match: SpinMatch, url: str, client: str) -> list[tuple[bytes, bytes]]:
    """Returns the headers that tell a component by which route it was found."""
    pattern = match.route.path or ""
    plain = pattern.removesuffix("/...") or "/"
    found = {
        "spin-path-info": match.path_info,
        "spin-full-url": url,
        "spin-matched-route": pattern,
        "spin-raw-component-route": pattern,
        "spin-component-route": plain,
        "spin-base-path": "/",
        "spin-client-addr": client,
        **{f"spin-path-match-{name}": value for name, value in match.named.items()},
    }
    return [(name.lower().encode("latin-1"), value.encode("utf-8")) for name, value in found.items()]
