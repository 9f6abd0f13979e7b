"""``wasi:http/outgoing-handler``: requests of guests to other servers, by httpcore."""

import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio
import httpcore
from anyio import from_thread
from anyio.abc import TaskGroup
from httpcore import AnyIOBackend

from shimd.component.results import Case, Err, Ok
from shimd.wasi.destinations import Destinations, Prohibited
from shimd.wasi.http.body import Aborted, BodyStream, OutgoingBody
from shimd.wasi.http.fields import Fields
from shimd.wasi.http.in_process import AsgiApplication, InProcess
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
_PROHIBITED = Case("destination-IP-prohibited")
#: ``HOST[:PORT]``: nothing that one reader takes for a part of the host, and another for something before or behind it.
_AUTHORITY = re.compile(r"(\[[^\[\]@]+\]|[^\[\]:@]+)(?::(\d{1,5}))?\Z")
_NO_AUTHORITY = "self.alt"
"""What requests without one are told by: only this application answers them."""
Check = Callable[[str, str], None]
"""A check of the scheme and the authority: whether a guest may send requests there.

:raises Err: an ``error-code``, if not
"""


def anything(_scheme: str, _authority: str) -> None:
    """Allow every address."""


def nothing(_scheme: str, _authority: str) -> None:
    """Allow no address at all."""
    raise DENIED


def _nobody(_scheme: str, _authority: str) -> None:
    """Have all requests sent to other servers."""


class Sender(Protocol):
    """Sends a request, as httpcore's pools do."""

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response: ...


def _unwatched(sender: Sender) -> Sender:
    return sender


@dataclass(frozen=True)
class OutgoingRules:
    """What holds for requests that the check lets pass."""

    destinations: Destinations = field(default_factory=Destinations)
    contexts: Mapping[str, Callable[[], ssl.SSLContext]] = field(default_factory=dict)
    """By host: what makes its TLS context, if it is not the usual one."""
    limit: AbstractAsyncContextManager[None] = field(default_factory=nullcontext)
    """Entered for as long as a request is under way."""
    keeps: bool = True
    """Whether connections are kept for further requests."""
    neighbour: Callable[[str, str], AsgiApplication | None] = _nobody
    """Returns what answers requests to a scheme and an authority in this process, if anything does; else they are
    checked, and sent. Raises ``Err``, an ``error-code``, if it is not to."""
    watched: Callable[[Sender], Sender] = _unwatched
    """Returns what sends a request in the place of what would."""


class OutgoingHandler:
    """``wasi:http/outgoing-handler``, for all guests of an app; entered in the event loop before the first is run.

    Redirects are answers like any: a guest that follows one sends a request, which is checked.
    """

    def __init__(self, trust: Trust, check: Check = anything, rules: OutgoingRules | None = None) -> None:
        self._trust, self._check, self._rules = trust, check, rules or OutgoingRules()
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}
        """By the host that has a TLS context of its own, empty for all others; made when something is asked."""
        self._tasks: TaskGroup

    async def __aenter__(self) -> "OutgoingHandler":
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(*exception)
        for pool in self._pools.values():
            await pool.aclose()

    def handle(self, request: OutgoingRequest, options: RequestOptions | None) -> FutureIncomingResponse:
        scheme = scheme_name(request.scheme() or Case("HTTPS"))
        if scheme not in ("http", "https"):
            raise Err(Case("HTTP-protocol-error"))
        authority = request.authority() or ""
        url = _url(scheme, authority or _NO_AUTHORITY, request.path_with_query() or "/")
        neighbour = self._rules.neighbour(scheme, authority)
        if neighbour is None:
            if not authority:
                raise Err(Case("HTTP-request-URI-invalid"))
            self._check(scheme, authority)
        built = httpcore.Request(
            method_name(request.method()),
            url,
            headers=[("Host", authority or _NO_AUTHORITY), *_headers(request)],
            content=request.sent_body.pipe.chunks() if request.sent_body is not None else None,
            extensions={"timeout": _timeout(options)},
        )
        pool: Sender = self._pool(url.host.decode("ascii")) if neighbour is None else InProcess(neighbour, self._tasks)
        limit = self._rules.limit if neighbour is None else nullcontext()
        exchange = _OutgoingExchange(built, request.sent_body)
        return from_thread.run_sync(self._begin, exchange, self._rules.watched(pool), limit)

    def _pool(self, host: str) -> httpcore.AsyncConnectionPool:
        """:raises Err: the host is an address that is blocked"""
        if self._rules.destinations.refuses(host):
            raise Err(_PROHIBITED)
        own = host if host in self._rules.contexts else ""
        if own not in self._pools:  # the context is made here: its files may be slow
            context = self._rules.contexts[own]() if own else self._trust.context
            from_thread.run_sync(self._pools.setdefault, own, self._made(context))
        return self._pools[own]

    def _begin(
        self,
        exchange: "_OutgoingExchange",
        pool: Sender,
        limit: AbstractAsyncContextManager[None],
    ) -> FutureIncomingResponse:
        exchange.scope = anyio.CancelScope()
        self._tasks.start_soon(exchange.run, pool, limit)
        return exchange.future

    def _made(self, context: ssl.SSLContext) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=None,
            max_keepalive_connections=None if self._rules.keeps else 0,
            keepalive_expiry=15,
            network_backend=_CheckedBackend(self._rules.destinations) if self._rules.destinations else None,
        )


class _ConnectProhibited(httpcore.ConnectError):
    pass


class _CheckedBackend(AnyIOBackend):
    """Connects to the addresses of a host that may be connected to, one after the other."""

    def __init__(self, destinations: Destinations) -> None:
        self._destinations = destinations

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 the interface's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            with anyio.fail_after(timeout):
                return await self._first(await self._destinations.addresses(host, port), port, socket_options)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except Prohibited as error:
            raise _ConnectProhibited(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error

    async def _first(
        self, addresses: list[str], port: int, options: Iterable[httpcore.SOCKET_OPTION] | None
    ) -> httpcore.AsyncNetworkStream:
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError):
                return await super().connect_tcp(address, port, socket_options=options)
        return await super().connect_tcp(addresses[-1], port, socket_options=options)


class _OutgoingExchange:
    """One request and its response, whose body is passed on as the guest reads it."""

    scope: anyio.CancelScope
    """Cancelled when the guest gives the answer up."""

    def __init__(self, request: httpcore.Request, body: OutgoingBody | None) -> None:
        self._request = request
        self._body = body
        self._answered = anyio.Event()
        self._chunks, self._reader = anyio.create_memory_object_stream[bytes](0)
        self.future = FutureIncomingResponse(lambda: self.future.outcome is not None, self._answered.wait, self._stop)

    async def run(self, pool: Sender, limit: AbstractAsyncContextManager[None]) -> None:
        with self._chunks, self.scope:
            try:
                async with limit:
                    await self._run(pool)
            except (*_ERRORS, Aborted) as error:
                self._reader.close()
                if self._body is not None:
                    self._body.pipe.abandon(str(error))
                self._answer(Err(error_code(error)))

    async def _run(self, pool: Sender) -> None:
        response = await pool.handle_async_request(self._request)
        async with aclosing(response):
            self._answer(Ok(self._incoming(response)))
            with suppress(anyio.BrokenResourceError):  # the guest reads no further
                async for chunk in response.aiter_stream():
                    await self._chunks.send(chunk)

    def _give_up(self) -> None:
        self.scope.cancel()
        self._reader.close()
        if self._body is not None:
            self._body.pipe.abandon("nobody waits for the answer")

    def _answer(self, outcome: Ok | Err) -> None:
        if self.future.outcome is None:
            self.future.outcome = outcome
        self._answered.set()

    def _incoming(self, response: httpcore.Response) -> IncomingResponse:
        headers = Fields((name.decode("latin-1"), value) for name, value in response.headers)
        return IncomingResponse(response.status, headers, BodyStream(self._receive, self._stop))

    def _stop(self) -> None:
        """Called on the guest's thread, when it wants no more: not even the server's next bytes are waited for."""
        from_thread.run_sync(self._give_up)

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


def _url(scheme: str, authority: str, path: str) -> httpcore.URL:
    """Put a URL together of its parts, each of which stays what it is: a path that begins with ``@`` is no host.

    :raises Err: the authority is not ``HOST[:PORT]``
    """
    found = _AUTHORITY.match(authority) if authority.isascii() else None
    port = int(found[2]) if found and found[2] else None
    if found is None or (port is not None and not 0 < port < 1 << 16):
        raise Err(Case("HTTP-request-URI-invalid"))
    target = path.partition("#")[0]
    if target != "*" and not target.startswith("/"):
        target = f"/{target}"
    return httpcore.URL(scheme=scheme, host=found[1].strip("[]").lower(), port=port, target=target.encode())


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
        case _ConnectProhibited():
            return _PROHIBITED
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
