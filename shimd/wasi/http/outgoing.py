"""``wasi:http/outgoing-handler``: requests of guests to other servers, by httpcore."""

import ssl
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any

import anyio
import httpcore
from anyio import from_thread
from anyio.abc import TaskGroup

from shimd.component.values import Case, Err, Ok
from shimd.wasi.http.body import Aborted, BodyStream, OutgoingBody
from shimd.wasi.http.fields import Fields
from shimd.wasi.http.types import (
    FutureIncomingResponse,
    IncomingResponse,
    OutgoingRequest,
    RequestOptions,
    method_name,
    scheme_name,
)
from shimd.wasi.trust import Trust

#: Seconds, unless the guest says otherwise (wasmtime's own, too).
_TIMEOUT = 600.0
DENIED = Err(Case("HTTP-request-denied"))
Check = Callable[[str, str], None]
"""A check of the scheme and the authority: whether a guest may send requests there.

:raises Err: an ``error-code``, if not
"""


def anything(_scheme: str, _authority: str) -> None:
    """Allow every address."""


def nothing(_scheme: str, _authority: str) -> None:
    """Allow no address at all."""
    raise DENIED


class OutgoingHandler:
    """``wasi:http/outgoing-handler``, for all guests of an app; entered in the event loop before the first is run."""

    def __init__(self, trust: Trust, check: Check = anything) -> None:
        self._trust, self._check = trust, check
        self._pool: httpcore.AsyncConnectionPool | None = None
        """``None`` until something is asked."""
        self._tasks: TaskGroup

    async def __aenter__(self) -> "OutgoingHandler":
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(*exception)
        if self._pool is not None:
            await self._pool.aclose()

    def handle(self, request: OutgoingRequest, options: RequestOptions | None) -> FutureIncomingResponse:
        scheme = scheme_name(request.scheme() or Case("HTTPS"))
        if scheme not in ("http", "https"):
            raise Err(Case("HTTP-protocol-error"))
        authority = request.authority() or ""
        if not authority:
            raise Err(Case("HTTP-request-URI-invalid"))
        self._check(scheme, authority)
        built = httpcore.Request(
            method_name(request.method()),
            f"{scheme}://{authority}{request.path_with_query() or '/'}",
            headers=[("Host", authority), *_headers(request)],
            content=request.sent_body.pipe.chunks() if request.sent_body is not None else None,
            extensions={"timeout": _timeout(options)},
        )
        exchange = _OutgoingExchange(built, request.sent_body)
        from_thread.run_sync(self._begin, exchange, self._trust.context)  # made here: its files may be slow
        return exchange.future

    def _begin(self, exchange: "_OutgoingExchange", tls: ssl.SSLContext) -> None:
        if self._pool is None:
            self._pool = httpcore.AsyncConnectionPool(ssl_context=tls, max_connections=None, keepalive_expiry=15)
        self._tasks.start_soon(exchange.run, self._pool)


class _OutgoingExchange:
    """One request and its response, whose body is passed on as the guest reads it."""

    def __init__(self, request: httpcore.Request, body: OutgoingBody | None) -> None:
        self._request = request
        self._body = body
        self._answered = anyio.Event()
        self._chunks, self._reader = anyio.create_memory_object_stream[bytes](0)
        self.future = FutureIncomingResponse(lambda: self.future.outcome is not None, self._answered.wait)

    async def run(self, pool: httpcore.AsyncConnectionPool) -> None:
        try:
            response = await pool.handle_async_request(self._request)
            async with self._chunks, aclosing(response):
                self._answer(Ok(self._incoming(response)))
                with suppress(anyio.BrokenResourceError):  # the guest reads no further
                    async for chunk in response.aiter_stream():
                        await self._chunks.send(chunk)
        except (*_ERRORS, Aborted) as error:
            if self._body is not None:
                self._body.pipe.abandon(str(error))
            self._answer(Err(error_code(error)))

    def _answer(self, outcome: Ok | Err) -> None:
        if self.future.outcome is None:
            self.future.outcome = outcome
        self._answered.set()

    def _incoming(self, response: httpcore.Response) -> IncomingResponse:
        headers = Fields((name.decode("latin-1"), value) for name, value in response.headers)
        return IncomingResponse(response.status, headers, BodyStream(self._receive, self._stop))

    def _stop(self) -> None:
        from_thread.run_sync(self._reader.close)

    async def _receive(self) -> bytes | None:
        try:
            return await self._reader.receive()
        except anyio.EndOfStream:
            return None


#: The errors that httpcore raises.
_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
)


def _headers(request: OutgoingRequest) -> list[tuple[bytes, bytes]]:
    """Returns the headers that the guest has set; a body of unknown length goes in chunks."""
    headers = [(name.encode(), value) for name, value in request.headers().entries()]
    known = any(name == b"content-length" for name, _value in headers)
    return headers if known or request.sent_body is None else [*headers, (b"transfer-encoding", b"chunked")]


def _timeout(options: RequestOptions | None) -> dict[str, float]:
    def seconds(duration: int | None) -> float:
        return duration / 1e9 if duration is not None else _TIMEOUT

    if options is None:
        return dict.fromkeys(("connect", "read", "write", "pool"), _TIMEOUT)
    read = max(seconds(options.first_byte_timeout()), seconds(options.between_bytes_timeout()))
    return {"connect": seconds(options.connect_timeout()), "read": read, "write": _TIMEOUT, "pool": _TIMEOUT}


def error_code(error: Exception) -> Case:
    """Convert an error of httpcore's to an ``error-code``."""
    text = str(error)
    match error:
        case httpcore.ConnectTimeout():
            return Case("connection-timeout")
        case httpcore.ReadTimeout():
            return Case("connection-read-timeout")
        case httpcore.WriteTimeout():
            return Case("connection-write-timeout")
        case httpcore.ConnectError() if isinstance(_cause(error), ssl.SSLCertVerificationError):
            return Case("TLS-certificate-error")
        case httpcore.ConnectError() if "Name or service" in text or "name resolution" in text or "No address" in text:
            return Case("DNS-error", {"rcode": text, "info-code": None})
        case httpcore.ConnectError():
            return Case("connection-refused")
        case httpcore.RemoteProtocolError():
            return Case("HTTP-response-incomplete")
        case httpcore.UnsupportedProtocol():
            return Case("HTTP-request-URI-invalid")
        case httpcore.NetworkError():
            return Case("connection-terminated")
        case Aborted():
            return Case("HTTP-request-body-size", None)
        case _:
            return Case("internal-error", text)


def _cause(error: BaseException) -> BaseException | None:
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, ssl.SSLError):
        seen = seen.__cause__ or seen.__context__
    return seen
