"""Calls of a component's exported function: an instance for each, on a thread of its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
from anyio import to_thread

from shimd.apps.http.pool import Pool
from shimd.component.guest import Guest
from shimd.component.host import Host
from shimd.component.results import Err, GuestExit
from shimd.wasi.compute_lock import ComputeLock

#: Threads are as many as calls are let in.
UNLIMITED = anyio.CapacityLimiter(1 << 20)


class Invoker:
    """Calls one component's functions, by triggers other than HTTP. ``async with`` it, to have instances made ahead."""

    def __init__(self, host: Host, name: str, *, pool: int = 1, concurrency: int = 64) -> None:
        self._host = host
        self._name = name
        self._compute_lock = ComputeLock()
        self._pool = Pool(host, pool, self._compute_lock)
        self._guests = anyio.CapacityLimiter(concurrency)

    async def __aenter__(self) -> "Invoker":
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._pool.__aexit__(*exception)

    async def __call__(self, interface: str, function: str, *arguments: Any) -> bool:
        """Call a function in a fresh instance; returns whether it succeeded. A failure is a line on the app's stderr.

        :param interface: the full name, as the component exports it; empty for a function outside of any interface
        """
        async with self._guests:
            try:
                guest = await self._pool.acquire()
            except Exception as error:
                report_error(self._name, str(error))
                return False
            return await to_thread.run_sync(self._run, guest, interface, function, arguments, limiter=UNLIMITED)

    def _run(self, guest: Guest, interface: str, function: str, arguments: tuple[Any, ...]) -> bool:
        try:
            with self._compute_lock.held() as guest.lease, closing_guest(guest):
                result = self._host.call(guest, interface, function, *arguments)
        except GuestExit as exit:
            if exit.code:
                report_error(self._name, f"the guest exited with {exit.code}")
            return exit.code == 0
        except Exception as error:
            report_error(self._name, str(error))
            return False
        if isinstance(result, Err):
            report_error(self._name, f"{function} failed: {_reason(result.value)}")
            return False
        return True


def _reason(value: Any) -> str:
    """Returns the text of a guest's error, which is a case with a text, as a rule."""
    payload = getattr(value, "payload", None)
    return str(payload if payload is not None else getattr(value, "tag", value))


@contextmanager
def closing_guest(guest: Guest) -> Iterator[None]:
    """Close the guest's resources and store at the end of the block."""
    try:
        yield
    finally:
        with guest.entered():
            guest.close()


def report_error(name: str, text: str) -> None:
    """Write a line to the app's stderr, with the component's name if it has one."""
    where = f"shimd: {name}: " if name else "shimd: "
    with suppress(OSError):  # nobody reads it
        os.write(2, f"{where}{text.rstrip()}\n".encode(errors="replace"))
