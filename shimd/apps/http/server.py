"""The HTTP server around an ASGI application: uvicorn, on a socket of ours, until a signal ends it."""

import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from types import FrameType
from typing import Any

import anyio
import uvicorn

from shimd.apps import processes
from shimd.apps.http.settings import Settings
from shimd.engines.base import EngineError

#: Those that end the app, after its requests under way; the second time at once.
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the app's matter: uvicorn would raise them again at the end."""
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        raise NotImplementedError


def listen(settings: Settings) -> socket.socket:
    """:raises EngineError: the address cannot be had"""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio: TCP_NODELAY only if told so
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
    settings: Settings,
    around: Sequence[AbstractAsyncContextManager[Any]] = (),
    listener: socket.socket | None = None,
) -> int:
    """Serve until told to end; returns the exit code.

    :param around: entered before the first request, left after the last
    :param listener: to serve on, in this process, rather than at the settings' address
    :raises EngineError: the address cannot be had
    """
    listeners = [listener] if listener else [listen(settings) for _ in range(settings.processes)]
    if settings.access_log:
        _log_to_stdout()
    return processes.run([_server(application, settings, listener, around) for listener in listeners])


def _server(
    application: Any,
    settings: Settings,
    listener: socket.socket,
    around: Sequence[AbstractAsyncContextManager[Any]],
) -> Callable[[], int]:
    return lambda: anyio.run(_serve, application, settings, listener, around)


async def _serve(
    application: Any,
    settings: Settings,
    listener: socket.socket,
    around: Sequence[AbstractAsyncContextManager[Any]],
) -> int:
    server = _Server(configuration(application, settings))
    with anyio.open_signal_receiver(*SIGNALS) as signals:
        async with AsyncExitStack() as stack:
            for manager in around:
                await stack.enter_async_context(manager)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_obey, signals, server)
                await server.serve(sockets=[listener])
                tasks.cancel_scope.cancel()
            if server.force_exit:
                os._exit(0)  # threads of guests would be waited for
    return 0


def configuration(application: Any, settings: Settings) -> uvicorn.Config:
    """What uvicorn loads by name is loaded here: in a container its files are out of sight."""
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
        timeout_keep_alive=75,
    )
    config.load()
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # an app's failures are told by the handler
    return config


async def _obey(signals: AsyncIterator[signal.Signals], server: uvicorn.Server) -> None:
    async for _number in signals:
        if server.should_exit:
            server.force_exit = True
        server.should_exit = True


def _log_to_stdout() -> None:
    logger = logging.getLogger("uvicorn.access")
    handler = logging.StreamHandler(open(1, "w", buffering=1, closefd=False))  # noqa: SIM115 as long as we run
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
