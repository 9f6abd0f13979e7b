"""Where Prometheus asks: HTTP, from threads, so that who asks keeps nothing of the daemon's waiting."""

import asyncio
import os
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import anyio
from prometheus_client import CollectorRegistry, make_wsgi_app

from shimd.errors import from_os
from shimd.log import logger
from shimd.supervisor.metrics.address import Address
from shimd.supervisor.metrics.prometheus import Cache, PrometheusMeasures, State
from shimd.supervisor.metrics.requests import App, Requests, apps
from shimd.supervisor.supervisor import Supervisor

_log = logger(__name__)
#: Seconds between two looks at the event loop, and until the next attempt to listen.
_LOOK, _PAUSE = 1.0, 5.0
#: Seconds for the event loop to tell what is there, for a client to say something, and for all of a request.
_LONGEST, _TIMEOUT, _WHOLE = 5.0, 10.0, 30.0
#: Seconds until its thread sees that it is to end, which the daemon's end waits for.
_POLL = 0.05
#: Requests; more are closed.
_AT_A_TIME = 8


class _Answering(WSGIRequestHandler):
    timeout = _TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a scrape is no news."""

    def address_string(self) -> str:
        return ""


class _Tcp(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: Address, context: ssl.SSLContext | None) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._context, self._slots = context, threading.BoundedSemaphore(_AT_A_TIME)
        super().__init__((address.host, address.port), _Answering)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread, if there are not too many: who may connect shall not have all of the daemon's descriptors."""
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with request.dup() as another:
            late = threading.Timer(_WHOLE, self._break_off, [another])
            late.daemon = True
            late.start()
            try:
                super().process_request_thread(request, client_address)
            finally:
                late.cancel()
                self._slots.release()

    def _break_off(self, request: socket.socket) -> None:
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        """As the base class, which would ask a name server who we are."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the request's own thread: a client that is slow to shake hands keeps no other waiting."""
        if self._context is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(_TIMEOUT)
        with self._context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or has no certificate, is nobody's error."""


class _Unix(_Tcp):
    address_family = socket.AF_UNIX

    def __init__(self, address: Address, _context: ssl.SSLContext | None) -> None:
        self.address_family, self._context, self._path = socket.AF_UNIX, None, address.path
        self._slots, self._is_bound = threading.BoundedSemaphore(_AT_A_TIME), False
        WSGIServer.__init__(self, address.path, _Answering)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(self._path).st_mode):  # a killed daemon's; nothing else is ours to remove
                os.unlink(self._path)
        self.socket.bind(self._path)
        self._is_bound = True
        os.chmod(self._path, 0o600)
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()

    def get_request(self) -> tuple[Any, Any]:
        request, _ = self.socket.accept()
        return request, ("", 0)

    def server_close(self) -> None:
        super().server_close()
        if self._is_bound:
            with suppress(OSError):
                os.unlink(self._path)


class Exporter:
    """Of one daemon."""

    def __init__(self, address: Address, measures: PrometheusMeasures, supervisor: Supervisor) -> None:
        self._address, self._measures, self._supervisor = address, measures, supervisor
        self._problem = ""
        measures.watch(supervisor)

    async def serve(self) -> None:
        """Serve until cancelled; where that is not possible, the apps go on."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._look)
            loop = asyncio.get_running_loop()
            while True:
                with suppress(_NotNow), self._listening(partial(self._registry, loop)):
                    await anyio.sleep_forever()
                await anyio.sleep(_PAUSE)

    async def _look(self) -> None:
        while True:
            begun = time.perf_counter()
            await anyio.sleep(_LOOK)
            self._measures.lag.observe(max(0.0, time.perf_counter() - begun - _LOOK))

    def _registry(self, loop: asyncio.AbstractEventLoop) -> CollectorRegistry:
        """All that is to be told, for one who asks. Called in a thread."""
        state, found = asyncio.run_coroutine_threadsafe(self._state(), loop).result(_LONGEST)
        registry = CollectorRegistry(auto_describe=False)
        for collector in (self._measures.registry, state, Cache(self._supervisor), Requests(found)):
            registry.register(collector)
        return registry

    async def _state(self) -> tuple[State, list[App]]:
        return State(self._supervisor), apps(self._supervisor)

    @contextmanager
    def _listening(self, registry: Callable[[], CollectorRegistry]) -> Iterator[None]:
        try:
            kind = _Unix if self._address.path else _Tcp
            server = kind(self._address, _context(self._address))
        except (OSError, ssl.SSLError) as error:
            problem = str(from_os(error))
            if problem != self._problem:  # it is tried again and again
                _log.error("metrics cannot be asked for at %s yet: %s", self._address, problem)
            self._problem = problem
            raise _NotNow from None
        server.set_app(partial(_answer, registry))
        thread = threading.Thread(target=server.serve_forever, args=[_POLL], name="metrics", daemon=True)
        thread.start()
        _log.info("metrics are served at %s", self._address)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()


def _answer(registry: Callable[[], CollectorRegistry], environ: Any, start: Any) -> Any:
    try:
        found = registry()
    except TimeoutError:  # the event loop does not turn, which its watchdog sees to
        start("503 Service Unavailable", [])
        return []
    return make_wsgi_app(found)(environ, start)


class _NotNow(Exception):
    """It is tried again."""


def _context(address: Address) -> ssl.SSLContext | None:
    if not address.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(address.certificate, address.key)
    if address.clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(address.clients)
    return context
