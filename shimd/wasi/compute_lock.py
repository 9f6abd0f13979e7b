"""A lock that guests hold while they compute: threads that fault pages in at the same time slow each other down.

A guest that does not get it soon computes without, so that one that computes for long holds up no other for more than a
moment. (Measured on two cores, with two processes and eight requests at a time: over twice the requests a second.)
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Seconds that a guest waits for the lock.
_PATIENCE = 0.02


class ComputeLock:
    """The lock of the guests of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def held(self) -> Iterator["ComputeLease"]:
        """Yield a lease that was acquired, or waited for in vain; it is released at the end."""
        lease = ComputeLease(self._lock)
        lease.acquire()
        try:
            yield lease
        finally:
            lease.release()


class ComputeLease:
    """One guest's hold on the lock, given up while the guest waits."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._held = False

    def acquire(self) -> None:
        """Wait for the lock, for a bounded time."""
        self._held = self._lock.acquire(timeout=_PATIENCE)

    def release(self) -> None:
        """Release the lock if it is held."""
        if self._held:
            self._held = False
            self._lock.release()
