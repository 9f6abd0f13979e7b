"""``wasi:clocks``."""

import time
from typing import Any

import anyio

from shimd.wasi.io import Pollable


class MonotonicClock:
    """``wasi:clocks/monotonic-clock``: nanoseconds since some instant."""

    def now(self) -> int:
        return time.monotonic_ns()

    def resolution(self) -> int:
        return max(1, int(time.get_clock_info("monotonic").resolution * 1e9))

    def subscribe_instant(self, when: int) -> Pollable:
        async def wait() -> None:
            await anyio.sleep(max(0, when - time.monotonic_ns()) / 1e9)

        return Pollable(lambda: time.monotonic_ns() >= when, wait)

    def subscribe_duration(self, duration: int) -> Pollable:
        return self.subscribe_instant(time.monotonic_ns() + duration)


class WallClock:
    """``wasi:clocks/wall-clock``."""

    def now(self) -> dict[str, int]:
        return datetime(time.time_ns())

    def resolution(self) -> dict[str, int]:
        return datetime(max(1, int(time.get_clock_info("time").resolution * 1e9)))


def datetime(nanoseconds: int) -> dict[str, Any]:
    """``wasi:clocks/wall-clock.datetime``."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return {"seconds": max(0, seconds), "nanoseconds": rest}
