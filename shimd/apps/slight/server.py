"""The ASGI application of a Slight application: a fresh instance for each request, whose handler answers it whole."""

import threading
from collections.abc import Callable
from typing import Any

import anyio
import wasmtime
from anyio import to_thread

from shimd.apps.background_task import BackgroundTask
from shimd.apps.calls import UNLIMITED, report_error
from shimd.apps.http.handler import AsgiReceive, AsgiScope, AsgiSend
from shimd.apps.slight.messages import CORS, SlightResponse, request, response
from shimd.apps.slight.routes import RouteTable, SlightMatch, SlightRoute
from shimd.component.results import Abandoned, GuestExit
from shimd.engines.http_settings import HttpSettings
from shimd.wasi.compute_lock import ComputeLock
from shimd.wit.guest import ModuleGuest
from shimd.wit.resolve import ResolvedFunction

#: Seconds between the ticks that a spinning guest is interrupted by.
_TICK = 0.5


class SlightServer(BackgroundTask):
    """The ASGI application; ``async with`` it while it serves."""

    def __init__(
        self,
        engine: wasmtime.Engine,
        make: Callable[[], ModuleGuest],
        handler: ResolvedFunction,
        table: RouteTable,
        settings: HttpSettings,
    ) -> None:
        """:param make: an instance"""
        self._engine = engine
        self._make = make
        self._handler = handler
        self._table = table
        self._timeout = settings.timeout
        self._guests = anyio.CapacityLimiter(settings.concurrency)
        self._compute_lock = ComputeLock()
        self._running = _Count()
        self._busy = anyio.Event()

    async def _work(self) -> None:
        """Advance the engine's epoch while guests run; an idle app stays asleep.

        Not by :class:`~shimd.apps.http.epoch_clock.EpochClock`: a guest here may run on when its request is over.
        """
        while self._timeout:
            self._busy = anyio.Event()
            while self._running.number:
                await anyio.sleep(_TICK)
                self._engine.increment_epoch()
            await self._busy.wait()

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        if scope["type"] != "http":
            return
        answer = await self._answer(scope, receive)
        fields = [*answer.headers, *CORS]
        if answer.status not in (204, 304):
            fields.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": fields})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: AsgiScope, receive: AsgiReceive) -> SlightResponse:
        match = self._table.find(scope["method"], scope["path"])
        if match is None:
            return SlightResponse(204 if scope["method"] == "OPTIONS" else 404)
        body = await _whole(receive)
        if body is None:
            return SlightResponse(400)  # which nobody sees
        async with self._guests:
            return await self._handle(match, request(scope, match.params, body))

    async def _handle(self, match: SlightMatch, message: dict[str, Any]) -> SlightResponse:
        call = _Call(self._make, self._handler, match.route, self._timeout)
        self._busy.set()
        with anyio.move_on_after(self._timeout or None):
            return await to_thread.run_sync(self._run, call, message, limiter=UNLIMITED, abandon_on_cancel=True)
        call.abandon()
        report_error(call.route.handler, f"no answer within {self._timeout:g} s")
        return SlightResponse(504)

    def _run(self, call: "_Call", message: dict[str, Any]) -> SlightResponse:
        """Run the guest, on a thread of its own; its failures become status codes."""
        with self._running, self._compute_lock.held() as lease:
            try:
                return response(call.answer(message, lease))
            except Abandoned:
                return SlightResponse(504)  # which nobody sees
            except GuestExit as exit:
                reason = f"the guest exited with {exit.code}"
            except Exception as error:
                reason = str(error)
        if not call.abandoned:
            report_error(call.route.handler, reason)
        return SlightResponse(500)


async def _whole(receive: AsgiReceive) -> bytes | None:
    """Receive a request's whole body; ``None``: the client has gone away."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


class _Count:
    """Counts the guests that run, whether anybody waits for them or not."""

    def __init__(self) -> None:
        self.number = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.number += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self.number -= 1


class _Call:
    """One request's guest."""

    def __init__(
        self, make: Callable[[], ModuleGuest], handler: ResolvedFunction, route: SlightRoute, timeout: float
    ) -> None:
        self._make = make
        self._handler = handler
        self.route = route
        self._ticks = int(timeout / _TICK) + 1
        self._guest: ModuleGuest | None = None
        self.abandoned = False

    def answer(self, message: dict[str, Any], lease: Any) -> Any:
        guest = self._guest = self._make()
        guest.lease, guest.abandoned = lease, self.abandoned
        if self._ticks > 1:
            guest.store.set_epoch_deadline(self._ticks)
        try:
            return guest.call(self._handler, self.route.export, message)
        finally:
            guest.close()

    def abandon(self) -> None:
        self.abandoned = True
        if self._guest is not None:
            self._guest.abandoned = True
