"""``http-client``: requests over HTTP/1.1 and TLS, from the container's network."""

from functools import cached_property
from typing import Any
from urllib.parse import urljoin

import httpcore

from shimd.apps.slight.backend import failing
from shimd.wasi.trust import Trust

#: Seconds for a connection, and between bytes.
_PATIENCE = 30.0
#: As many as Slight's own client follows.
_REDIRECTS = 10
_KEEPS_METHOD = (307, 308)
#: Headers that are not sent on to another origin (RFC 9110, 15.4).
_OF_ONE_ORIGIN = ("authorization", "cookie", "proxy-authorization")


class HttpClient:
    """Provides ``http-client`` to guests."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    @cached_property
    def _pool(self) -> httpcore.ConnectionPool:
        return httpcore.ConnectionPool(ssl_context=self._trust.context, max_connections=None, keepalive_expiry=30)

    def request(self, request: dict[str, Any]) -> dict[str, Any]:
        cases = {
            (httpcore.UnsupportedProtocol, ValueError): "invalid-url",
            httpcore.TimeoutException: "timeout-error",
            httpcore.ProtocolError: "protocol-error",
        }
        with failing(cases):
            response = self._followed(request["method"].upper(), request["uri"], request["headers"], request["body"])
            return {
                "status": response.status,
                "headers": [
                    (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers
                ],
                "body": response.content,
            }

    def _followed(self, method: str, url: str, headers: list[tuple[str, str]], body: bytes | None) -> httpcore.Response:
        for _ in range(_REDIRECTS + 1):
            response = self._pool.request(
                method,
                url,
                headers=[(name.encode(), value.encode()) for name, value in headers],
                content=body,
                extensions={"timeout": {"connect": _PATIENCE, "read": _PATIENCE, "write": _PATIENCE, "pool": None}},
            )
            location = {name.lower(): value for name, value in response.headers}.get(b"location")
            if response.status not in (301, 302, 303, *_KEEPS_METHOD) or location is None:
                return response
            before, url = url, urljoin(url, location.decode("latin-1"))
            if httpcore.URL(before).origin != httpcore.URL(url).origin:
                headers = [(name, value) for name, value in headers if name.lower() not in _OF_ONE_ORIGIN]
            if response.status not in _KEEPS_METHOD and method != "HEAD":
                method, body = "GET", None
        raise RuntimeError(f"more than {_REDIRECTS} redirections")
