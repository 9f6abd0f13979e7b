"""Instances: each is used for one request, and a few are made ahead, so that a request need not wait for one."""

from collections import deque

import anyio
from anyio import to_thread

from shimd.apps.background_task import BackgroundTask
from shimd.component.guest import Guest
from shimd.component.host import Host
from shimd.wasi.compute_lock import ComputeLock


class Pool(BackgroundTask):
    """The instances of one component; used in the event loop. ``async with`` it, to have some made ahead."""

    def __init__(self, host: Host, size: int, compute_lock: ComputeLock) -> None:
        self._host = host
        self._compute_lock = compute_lock
        self._size = size
        self._idle: deque[Guest] = deque()
        self._taken = anyio.Event()
        self._limiter = anyio.CapacityLimiter(1)

    async def acquire(self) -> Guest:
        """Returns a fresh instance, which is the caller's to close.

        :raises wasmtime.WasmtimeError: it trapped at its start
        """
        self._taken.set()
        if self._idle:
            return self._idle.popleft()
        return await to_thread.run_sync(self._make)

    def _make(self) -> Guest:
        with self._compute_lock.held():
            return self._host.instantiate()

    async def _work(self) -> None:
        """Keep some ready, until cancelled. An error ends that: :meth:`acquire` then makes each itself, and raises
        it."""
        while True:
            self._taken = anyio.Event()
            try:
                while len(self._idle) < self._size:
                    self._idle.append(await to_thread.run_sync(self._make, limiter=self._limiter))
            except Exception:
                self._size = 0
            await self._taken.wait()
