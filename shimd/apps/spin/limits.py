"""How many connections the components of an application may have open at a time, in one of its processes."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from anyio import from_thread

from shimd.apps.spin.networking import Networking
from shimd.wasi.waiting import wait_for


class ConnectionLimit:
    """The limits of one protocol's connections: its own, and that of all protocols. Who comes too late waits."""

    def __init__(self, *limits: anyio.Semaphore) -> None:
        self._limits = limits

    def __bool__(self) -> bool:
        return bool(self._limits)

    async def __aenter__(self) -> None:
        held = 0
        try:
            for limit in self._limits:
                await limit.acquire()
                held += 1
        except BaseException:
            self._release(held)
            raise

    async def __aexit__(self, *exception: object) -> None:
        self._release(len(self._limits))

    def _release(self, held: int) -> None:
        for limit in self._limits[:held]:
            limit.release()

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Count a connection that is made meanwhile, by a guest's thread, unless that fails."""
        if not self._limits:
            yield
            return
        wait_for(self.__aenter__)
        try:
            yield
        except BaseException:
            self.closed()
            raise

    def closed(self) -> None:
        """Called by a guest's thread, once for a connection."""
        if self._limits:
            from_thread.run_sync(self._release, len(self._limits))


class ConnectionLimits:
    """Those of all protocols."""

    def __init__(self, networking: Networking) -> None:
        shared = {most: anyio.Semaphore(most.number) for ones in networking.limits.values() for most in ones}
        self._made = {
            kind: ConnectionLimit(*(shared[most] for most in ones)) for kind, ones in networking.limits.items()
        }

    def of(self, kind: str) -> ConnectionLimit:
        """:param kind: of :data:`shimd.apps.spin.networking.KINDS`"""
        return self._made.get(kind) or ConnectionLimit()
