"""The HTTP server around an ASGI application: uvicorn, on a socket of ours, until a signal ends it."""

import logging
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from types import FrameType
from typing import Any

import anyio
import uvicorn
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES

from shimd.apps import processes, serving
from shimd.apps.http.tally import Tallies
from shimd.apps.serving import Service
from shimd.engine import EngineError
from shimd.engines.http_settings import HttpSettings

for _status in range(600, 1000):  # which an app may answer with, too: uvicorn breaks the connection off
    STATUS_PHRASES.setdefault(_status, b"")


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to :mod:`shimd.apps.serving`: uvicorn would raise them again at the end."""
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        raise NotImplementedError


def listen(settings: HttpSettings) -> socket.socket:
    """:raises EngineError: the address cannot be had"""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named: else asyncio sets no TCP_NODELAY
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if settings.processes > 1:  # the kernel shares connections out; of one socket the quickest process takes them all
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(settings.backlog)
    except OSError as error:
        listener.close()
        raise EngineError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from None
    return listener


def serve(
    application: Any,
    settings: HttpSettings,
    around: Sequence[AbstractAsyncContextManager[Any]] = (),
    listener: socket.socket | None = None,
    services: Sequence[Service] = (),
) -> int:
    """Serve until a signal or a service's end; returns the exit code.

    :param around: entered before the first request, left after the last
    :param listener: to serve on, in this process, rather than at the settings' address
    :param services: what else the app does, in one of its processes
    :raises EngineError: the address cannot be had, or one of ``services`` has ended
    """
    serving.hold_signals()
    listeners = [listener] if listener else [listen(settings) for _ in range(settings.processes)]
    if settings.access_log:
        _log_to_stdout()
    if settings.announced:
        _announce(*listeners[0].getsockname()[:2])
    tallies = Tallies(len(listeners))
    counted = [tallies.counted(number, application) for number in range(len(listeners))]
    servers = [HttpServer(one, settings, listener) for one, listener in zip(counted, listeners, strict=True)]
    groups = [[server, *(services if server is servers[0] else ())] for server in servers]
    return processes.run([partial(anyio.run, serving.serve, group, around, settings.grace) for group in groups])


class HttpServer:
    """An HTTP server (uvicorn's) as a service of an app."""

    def __init__(self, application: Any, settings: HttpSettings, listener: socket.socket) -> None:
        self._server = _Server(configuration(application, settings))
        self._listener = listener

    async def run(self) -> None:
        await self._server.serve(sockets=[self._listener])

    def stop(self) -> None:
        self._server.should_exit = True


def configuration(application: Any, settings: HttpSettings) -> uvicorn.Config:
    """Returns uvicorn's configuration, with what it names loaded: in a container those files are out of sight."""
    config = uvicorn.Config(
        application,
        interface="asgi3",
        lifespan="off",
        ws="none",
        http="h11",
        loop="asyncio",
        log_config=None,
        access_log=settings.access_log,
        server_header=False,
        backlog=settings.backlog,
        timeout_graceful_shutdown=settings.grace,  # type: ignore[arg-type]
        timeout_keep_alive=int(settings.idle),
    )
    config.load()
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # the handler reports an app's failures
    return config


def _announce(host: str, port: int) -> None:
    print(f"serving on http://{f'[{host}]' if ':' in host else host}:{port}", file=sys.stderr, flush=True)


def _log_to_stdout() -> None:
    logger = logging.getLogger("uvicorn.access")
    handler = logging.StreamHandler(open(1, "w", buffering=1, closefd=False))  # noqa: SIM115 as long as we run
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
