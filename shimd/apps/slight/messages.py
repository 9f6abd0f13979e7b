"""Requests and responses, between ASGI and the interface ``http-types``."""

import re
from dataclasses import dataclass, field
from typing import Any

from shimd.apps.http.handler import AsgiScope
from shimd.component.results import Case, Err

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
#: Open to pages of any origin, as Slight has it.
CORS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"*"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-expose-headers", b"*"),
]
#: Headers that the server sets, of the connection and the body as it is (RFC 9110, 7.6.1). Guests that answer with the
#: request's headers, as Slight's examples do, would set them for another message.
_OURS = frozenset(
    (
        *(name.decode() for name, _value in CORS),
        *(
            "connection",
            "content-length",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ),
    )
)


@dataclass(frozen=True)
class SlightResponse:
    status: int
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""


class InvalidResponse(Exception):
    """The guest's response cannot be sent; the message is one sentence."""


def request(scope: AsgiScope, params: list[tuple[str, str]], body: bytes) -> dict[str, Any]:
    """Convert a request of ASGI's to the interface's record ``request``."""
    query = scope["query_string"].decode("latin-1")
    return {
        "method": scope["method"].lower(),
        "uri": scope["raw_path"].decode("latin-1") + (f"?{query}" if query else ""),
        "headers": [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
        "params": params,
        "body": body,
    }


def response(answer: Any) -> SlightResponse:
    """Returns the response in an ``expected<response, http-error>``.

    :raises InvalidResponse: it is an error, or none that can be sent
    """
    if isinstance(answer, Err):
        return _error(answer.value)
    record = answer.value
    if not 200 <= record["status"] <= 599:
        raise InvalidResponse(f"the guest's status {record['status']} is none of an answer")
    headers = [_header(name, value) for name, value in record["headers"] or () if name.lower() not in _OURS]
    bodiless = record["status"] in (204, 304)
    return SlightResponse(record["status"], headers, b"" if bodiless else record["body"] or b"")


def _header(name: str, value: str) -> tuple[bytes, bytes]:
    if not _TOKEN.match(name) or any(character in value for character in "\r\n\0"):
        raise InvalidResponse(f"the guest's header {name!r} cannot be sent")
    return name.lower().encode(), value.strip().encode()


def _error(error: Case) -> SlightResponse:
    if error.tag == "status-error" and 400 <= error.payload <= 599:
        return SlightResponse(error.payload)
    raise InvalidResponse(f"the guest answers with the error {error.tag}: {error.payload}")
