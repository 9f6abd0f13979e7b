"""Runs an app's services in one event loop, until the first of them ends or a signal ends all."""

import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import Any, Protocol

import anyio

from shimd.apps.calls import report_error
from shimd.engine import EXIT_ENGINE, EngineError

#: Signals that end the app, after what is under way; the second of them ends it at once.
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Service(Protocol):
    """A part of an app that runs until it is stopped: a server, a subscriber, a schedule."""

    async def run(self) -> int | None:
        """Returns once it was stopped and all that was under way is finished; or with the app's exit code.

        :raises EngineError: it ended for another reason
        """
        ...

    def stop(self) -> None:
        """Begin nothing new. May be called before :meth:`run`, and more than once."""
        ...


def hold_signals() -> None:
    """Block the signals of :data:`SIGNALS` until :func:`serve` handles them, so that an early one is not lost.

    SIGPIPE, of which a command dies, is ignored: to a server, a peer that goes away is one connection's error.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


class StopScope:
    """The task that a service waits for, which can be stopped, even before it has begun."""

    def __init__(self) -> None:
        self._stopped = False
        self._scope: anyio.CancelScope | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        with anyio.CancelScope() as self._scope:
            if self._stopped:
                self._scope.cancel()
            yield

    def stop(self) -> None:
        self._stopped = True
        if self._scope is not None:
            self._scope.cancel()


async def serve(
    services: Sequence[Service], around: Sequence[AbstractAsyncContextManager[Any]] = (), grace: float = 25.0
) -> int:
    """Run services until the first of them ends, or a signal does; returns the exit code.

    :param around: context managers, entered before the first service is run, left after the last
    :param grace: seconds for what is under way, once all is to end
    :raises EngineError: the first of them failed
    """
    async with AsyncExitStack() as stack:
        for manager in around:
            await stack.enter_async_context(manager)
        serving = _Serving(services, grace)
        await serving.run()
    if serving.error is not None:
        raise serving.error
    return serving.code


class _Serving:
    def __init__(self, services: Sequence[Service], grace: float) -> None:
        self._services = services
        self._grace = grace
        self._ending = anyio.Event()
        self.code = 0
        self.error: EngineError | None = None
        """The failure of the first that ended."""

    async def run(self) -> None:
        with anyio.open_signal_receiver(*SIGNALS) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._obey, signals)
                tasks.start_soon(self._end_in_time)
                async with anyio.create_task_group() as running:
                    for service in self._services:
                        running.start_soon(self._run, service)
                tasks.cancel_scope.cancel()

    async def _run(self, service: Service) -> None:
        """Run the services; all end with the first, as in Spin."""
        try:
            code = await service.run()
            if not self._ending.is_set():
                self.code = code or 0
        except EngineError as error:
            if not self._ending.is_set():
                self.error = error
        self._end()

    def _end(self) -> None:
        self._ending.set()
        for service in self._services:
            service.stop()

    async def _obey(self, signals: AsyncIterator[signal.Signals]) -> None:
        await anext(signals)
        self._end()
        await anext(signals)
        os._exit(0)

    async def _end_in_time(self) -> None:
        """End the process once the grace period is over: a guest's thread cannot be cancelled, and would be waited
        for."""
        await self._ending.wait()
        await anyio.sleep(self._grace + 1)
        if self.error is not None:
            report_error("", str(self.error))
        os._exit(EXIT_ENGINE if self.error is not None else self.code)
