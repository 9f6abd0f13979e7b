"""Instances: each is used for one request, and a few are made ahead, so that a request need not wait for one."""

from collections import deque
from contextlib import nullcontext

import anyio
from anyio import to_thread

from shimd.apps.background_task import BackgroundTask
from shimd.apps.http.epoch_clock import EpochClock
from shimd.component.guest import Guest
from shimd.component.host import NEVER, Host
from shimd.wasi.compute_lock import ComputeLock


class Pool(BackgroundTask):
    """The instances of one component; used in the event loop. ``async with`` it, to have some made ahead."""

    def __init__(
        self,
        host: Host,
        size: int,
        compute_lock: ComputeLock,
        clock: EpochClock | None = None,
        timeout: float = 0.0,
    ) -> None:
        """
        :param clock: counts the time; none: there is no limit to it
        :param timeout: seconds until an instance must be there; 0: no limit
        """
        self._host = host
        self._clock = clock if timeout else None
        self._deadline = EpochClock.within(timeout) if self._clock else NEVER
        self._compute_lock = compute_lock
        self._size = size
        self._idle: deque[Guest] = deque()
        self._taken = anyio.Event()
        self._limiter = anyio.CapacityLimiter(1)

    async def acquire(self) -> Guest:
        """Returns a fresh instance, which is the caller's to close.

        :raises wasmtime.WasmtimeError: it trapped at its start, or has not come to its end
        """
        self._taken.set()
        if self._idle:
            return self._idle.popleft()
        return await to_thread.run_sync(self._make)

    def _make(self) -> Guest:
        with self._compute_lock.held():
            return self._host.instantiate(self._deadline)

    async def _work(self) -> None:
        """Keep some ready, until cancelled. An error ends that: :meth:`acquire` then makes each itself, and raises
        it."""
        while True:
            self._taken = anyio.Event()
            try:
                with self._clock.running() if self._clock else nullcontext():
                    while len(self._idle) < self._size:
                        self._idle.append(await to_thread.run_sync(self._make, limiter=self._limiter))
            except Exception:
                self._size = 0
            await self._taken.wait()
