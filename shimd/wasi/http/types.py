"""``wasi:http/types``: requests and responses, seen from both ends."""

from collections.abc import Callable
from typing import Any

from shimd.component.objects import close
from shimd.component.results import Case, Err, Ok
from shimd.wasi.http import body, fields
from shimd.wasi.http.body import IncomingBody, OutgoingBody
from shimd.wasi.http.fields import Fields
from shimd.wasi.io import Error, InputStream, Pollable

_METHODS = frozenset({"get", "head", "post", "put", "delete", "connect", "options", "trace", "patch"})
_TOKEN = fields.NAME


def method_case(name: str) -> Case:
    """Convert a method of a request line to the variant ``method``."""
    lower = name.lower()
    return Case(lower) if lower in _METHODS and name.isupper() else Case("other", name)


def method_name(case: Case) -> str:
    return case.payload if case.tag == "other" else case.tag.upper()


def scheme_case(name: str) -> Case:
    return Case(name.upper()) if name.lower() in ("http", "https") else Case("other", name)


def scheme_name(case: Case) -> str:
    return case.payload if case.tag == "other" else case.tag.lower()


class _IncomingMessage:
    """The half that requests and responses of others share: headers, and a body that is consumed once."""

    def __init__(self, headers: Fields, stream: InputStream) -> None:
        self._headers = headers
        self._body: IncomingBody | None = IncomingBody(stream)

    def close(self) -> None:
        """Drop the message; nobody will read its body, unless that was taken before."""
        close(self._body)

    def headers(self) -> Fields:
        return self._headers.frozen()

    def consume(self) -> IncomingBody:
        if self._body is None:
            raise Err(None)
        consumed, self._body = self._body, None
        return consumed


class _OutgoingMessage:
    """The half that requests and responses of ours share: headers, and a body that is made once."""

    def __init__(self, headers: Fields) -> None:
        self._headers = headers
        self.sent_body: OutgoingBody | None = None
        """``None`` unless the guest writes one."""

    def headers(self) -> Fields:
        return self._headers.frozen()

    def body(self) -> OutgoingBody:
        if self.sent_body is not None:
            raise Err(None)
        self.sent_body = OutgoingBody(content_length(self._headers))
        return self.sent_body


class IncomingRequest(_IncomingMessage):
    """``incoming-request``: a client's request to us."""

    def __init__(
        self, method: str, path: str, scheme: str, authority: str | None, headers: Fields, stream: InputStream
    ) -> None:
        super().__init__(headers, stream)
        self._method = method
        self._path = path
        self._scheme = scheme
        self._authority = authority

    def method(self) -> Case:
        return method_case(self._method)

    def path_with_query(self) -> str | None:
        return self._path

    def scheme(self) -> Case | None:
        return scheme_case(self._scheme)

    def authority(self) -> str | None:
        return self._authority


class OutgoingResponse(_OutgoingMessage):
    """``outgoing-response``: our response to a client."""

    def __init__(self, headers: Fields) -> None:
        super().__init__(headers)
        self.status = 200

    def status_code(self) -> int:
        return self.status

    def set_status_code(self, status: int) -> None:
        if not 100 <= status <= 999:
            raise Err(None)
        self.status = status

    def sent(self) -> tuple[int, list[tuple[str, bytes]], OutgoingBody | None]:
        """Returns status, headers, and the body, if the guest writes one."""
        return self.status, self._headers.entries(), self.sent_body


def content_length(headers: Fields) -> int | None:
    values = headers.get("content-length")
    return int(values[0]) if values and values[0].isdigit() else None


class ResponseOutparam:
    """``response-outparam``: passes the guest's response on, once."""

    def __init__(self, answer: Callable[[Ok | Err], None]) -> None:
        self._answer = answer

    @staticmethod
    def set(parameter: "ResponseOutparam", response: Ok | Err) -> None:
        parameter._answer(response)


class OutgoingRequest(_OutgoingMessage):
    """``outgoing-request``: a request of ours to another server."""

    def __init__(self, headers: Fields) -> None:
        super().__init__(headers)
        self._method = Case("get")
        self._path: str | None = None
        self._scheme: Case | None = None
        self._authority: str | None = None

    def method(self) -> Case:
        return self._method

    def set_method(self, method: Case) -> None:
        if not _TOKEN.match(method_name(method)):
            raise Err(None)
        self._method = method

    def path_with_query(self) -> str | None:
        return self._path

    def set_path_with_query(self, path: str | None) -> None:
        if path is not None and any(character <= " " or character == "\x7f" for character in path):
            raise Err(None)
        self._path = path

    def scheme(self) -> Case | None:
        return self._scheme

    def set_scheme(self, scheme: Case | None) -> None:
        self._scheme = scheme

    def authority(self) -> str | None:
        return self._authority

    def set_authority(self, authority: str | None) -> None:
        if authority is not None and any(character <= " " or character in "/?#\\" for character in authority):
            raise Err(None)
        self._authority = authority


class RequestOptions:
    """``request-options``: time limits, nanoseconds."""

    def __init__(self) -> None:
        self._connect: int | None = None
        self._first_byte: int | None = None
        self._between_bytes: int | None = None

    def connect_timeout(self) -> int | None:
        return self._connect

    def set_connect_timeout(self, duration: int | None) -> None:
        self._connect = duration

    def first_byte_timeout(self) -> int | None:
        return self._first_byte

    def set_first_byte_timeout(self, duration: int | None) -> None:
        self._first_byte = duration

    def between_bytes_timeout(self) -> int | None:
        return self._between_bytes

    def set_between_bytes_timeout(self, duration: int | None) -> None:
        self._between_bytes = duration


class IncomingResponse(_IncomingMessage):
    """``incoming-response``: another server's response to us."""

    def __init__(self, status: int, headers: Fields, stream: InputStream) -> None:
        super().__init__(headers, stream)
        self._status = status

    def status(self) -> int:
        return self._status

    def close(self) -> None:
        if self._body is not None:
            self._body.close()


class FutureIncomingResponse:
    """``future-incoming-response``."""

    def __init__(self, ready: Callable[[], bool], wait: Callable[[], Any], give_up: Callable[[], None]) -> None:
        """:param give_up: called on the guest's thread, when it drops this without a look at the answer"""
        self._pollable, self._give_up = Pollable(ready, wait), give_up
        self.outcome: Ok | Err | None = None
        self._taken = False

    def close(self) -> None:
        if not self._taken:
            self._give_up()

    def subscribe(self) -> Pollable:
        return self._pollable

    def get(self) -> Any:
        if self.outcome is None:
            return None
        if self._taken:
            return Err(None)
        self._taken = True
        return Ok(self.outcome)


class HttpTypes:
    """``wasi:http/types``."""

    Fields = Fields
    FutureIncomingResponse = FutureIncomingResponse
    FutureTrailers = body.FutureTrailers
    IncomingBody = IncomingBody
    IncomingRequest = IncomingRequest
    IncomingResponse = IncomingResponse
    OutgoingBody = OutgoingBody
    OutgoingRequest = OutgoingRequest
    OutgoingResponse = OutgoingResponse
    RequestOptions = RequestOptions
    ResponseOutparam = ResponseOutparam

    def http_error_code(self, error: Error) -> Case | None:
        return error.cause.args[0] if isinstance(error.cause, HttpError) else None


class HttpError(Exception):
    """The cause of a stream's error; its argument is an ``error-code`` of ``wasi:http``."""
