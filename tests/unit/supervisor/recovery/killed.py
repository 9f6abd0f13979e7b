"""A process that is killed at a chosen line of what it runs: what it leaves is what a SIGKILL leaves there."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

import anyio

#: Lines between two points at which processes are killed; 1 tries each (a minute).
STRIDE = int(os.environ.get("SHIMD_TEST_STRIDE", "29"))


def start_doomed(line: int, files: tuple[str, ...], run: Callable[[], Awaitable[None]]) -> int:
    """Fork a process that runs ``run`` and dies before it runs the so-many-th line in files of these names; its pid.
    Call this outside of event loops."""
    pid = os.fork()
    if pid:
        return pid
    try:
        left = line

        def trace_lines(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal left
            if event == "line":
                left -= 1
                if left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace_lines

        def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
            return trace_lines if frame.f_code.co_filename.endswith(files) else None

        sys.settrace(trace)
        anyio.run(run)
    finally:
        os._exit(0)


async def died(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        await anyio.wait_readable(pidfd)
        _bury(pid)
    finally:
        os.close(pidfd)


def _bury(pid: int) -> None:
    os.waitpid(pid, 0)


def lines() -> Iterator[int]:
    """Where to kill, from the first line on; the caller breaks when the process has survived."""
    line = 1
    while True:
        yield line
        line += STRIDE
