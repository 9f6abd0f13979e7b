"""The ASGI application between the HTTP server and the guests (https://asgi.readthedocs.io, HTTP 2.3)."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
from anyio import to_thread

from shimd.apps.calls import UNLIMITED, closing_guest, report_error
from shimd.apps.http.epoch_clock import EpochClock
from shimd.apps.http.pool import Pool
from shimd.component.guest import Guest, current
from shimd.component.host import NEVER, Host
from shimd.component.results import Abandoned, Err, GuestExit, Ok
from shimd.wasi.compute_lock import ComputeLock
from shimd.wasi.http.body import Aborted, BodyStream, OutgoingBody
from shimd.wasi.http.fields import Fields
from shimd.wasi.http.types import IncomingRequest, OutgoingResponse, ResponseOutparam

AsgiScope = dict[str, Any]
AsgiReceive = Callable[[], Awaitable[dict[str, Any]]]
AsgiSend = Callable[[dict[str, Any]], Awaitable[None]]
INTERFACE = "wasi:http/incoming-handler"


class Handler:
    """Requests in, a guest for each, responses out. ``async with`` it, to have instances made ahead."""

    def __init__(
        self,
        host: Host,
        clock: EpochClock,
        *,
        pool: int = 2,
        concurrency: int = 64,
        timeout: float = 60.0,
        name: str = "",
    ) -> None:
        self._host = host
        self._clock = clock
        self._name = name
        self._interface = host.export(INTERFACE) or INTERFACE
        self._compute_lock = ComputeLock()
        self._pool = Pool(host, pool, self._compute_lock, clock, timeout)
        self._guests = anyio.CapacityLimiter(concurrency)
        self._timeout = timeout

    async def __aenter__(self) -> "Handler":
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._pool.__aexit__(*exception)

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        if scope["type"] != "http":
            return
        request = _Exchange(scope, receive, send)
        async with self._guests:
            if self._timeout:
                with self._clock.running():
                    await self._serve(request)
            else:
                await self._serve(request)

    async def _serve(self, exchange: "_Exchange") -> None:
        try:
            guest = await self._pool.acquire()
        except Exception as error:
            await exchange.fail(self._failed(error))
            return
        guest.environment["REQUEST_ID"] = str(uuid.uuid4())
        async with anyio.create_task_group() as tasks:
            if self._timeout:
                guest.store.set_epoch_deadline(EpochClock.within(self._timeout))
                tasks.start_soon(self._expire, exchange, guest)
            tasks.start_soon(exchange.answer)
            await to_thread.run_sync(self._run, guest, exchange, limiter=UNLIMITED)
            await exchange.answered.wait()
            tasks.cancel_scope.cancel()

    async def _expire(self, exchange: "_Exchange", guest: Guest) -> None:
        with anyio.move_on_after(self._timeout):
            await exchange.started.wait()
            return
        guest.abandon()

    def _run(self, guest: Guest, exchange: "_Exchange") -> None:
        """Run the guest, on a thread of its own, from the request's first byte to the response's last."""
        try:
            with self._compute_lock.held() as guest.lease, closing_guest(guest):
                parameter = ResponseOutparam(exchange.respond)
                self._host.call(guest, self._interface, "handle", exchange.incoming(), parameter)
                exchange.returned()
        except GuestExit as exit:
            if exit.code:
                report_error(self._name, f"the guest exited with {exit.code}")
        except Exception as error:
            exchange.status = self._failed(error)
        finally:
            exchange.ended()

    def _failed(self, error: Exception) -> int:
        """Tell why there is no answer; returns the status that says it."""
        late = isinstance(error, Abandoned) or "wasm trap: interrupt" in str(error)
        report_error(self._name, f"no answer within {self._timeout:g} s" if late else str(error))
        return 504 if late else 500


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._response: OutgoingResponse | None = None
        self.started, self.answered = anyio.Event(), anyio.Event()
        self._loop = asyncio.get_running_loop()
        self.status = 500
        """The status of the response if the guest makes none."""

    def incoming(self) -> IncomingRequest:
        scope = self._scope
        headers = Fields((name.decode("latin-1"), value) for name, value in scope["headers"])
        host = headers.get("host")
        query = scope["query_string"].decode("latin-1")
        path = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        authority = host[0].decode("latin-1") if host else "{}:{}".format(*(scope["server"] or ("localhost", 80)))
        return IncomingRequest(
            scope["method"], path, scope["scheme"], authority, Fields(headers.entries()), BodyStream(self._body)
        )

    async def _body(self) -> bytes | None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client has gone away")
        data: bytes = message.get("body", b"")
        if not data and not message.get("more_body"):
            return None
        if not message.get("more_body"):
            self._receive = _no_more
        return data

    # On the guest's thread

    def respond(self, response: Ok | Err) -> None:
        """``response-outparam.set``: from now on the guest may take its time."""
        current().store.set_epoch_deadline(NEVER)
        if isinstance(response, Ok):
            self._response = response.value
        self._loop.call_soon_threadsafe(self.started.set)

    def returned(self) -> None:
        """End a body that the guest has neither finished nor dropped when it returns: it is whole (as in wasmtime's
        host).

        componentize-js leaves that of its 500 open.
        """
        if self._response is not None and (body := self._response.sent()[2]) is not None and not body.pipe.ended:
            with suppress(Err):  # its length is not its Content-Length: the pipe is marked as aborted
                OutgoingBody.finish(body, None)

    def ended(self) -> None:
        """Let go of who waits for the response, once the guest is gone, whatever it has answered."""
        if self._response is not None and (body := self._response.sent()[2]) is not None:
            body.close()
        self._loop.call_soon_threadsafe(self.started.set)

    # In the event loop

    async def answer(self) -> None:
        try:
            await self.started.wait()
            if self._response is None:
                await self.fail(self.status)
            else:
                await self._answer(*self._response.sent())
        finally:
            self.answered.set()

    async def _answer(self, status: int, headers: list[tuple[str, bytes]], body: OutgoingBody | None) -> None:
        fields = [(name.encode("latin-1"), value) for name, value in headers]
        if body is None and self._scope["method"] != "HEAD":
            fields = [*(field for field in fields if field[0] != b"content-length"), (b"content-length", b"0")]
        await self._send({"type": "http.response.start", "status": status, "headers": fields})
        if body is not None:
            try:
                async for chunk in body.pipe.chunks():
                    await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            except Aborted:
                raise ConnectionAbortedError("the guest ended before the end of its response") from None
            finally:
                body.pipe.abandon("the client has gone away")
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, status: int) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await self._send({"type": "http.response.body", "body": b""})


async def _no_more() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}
