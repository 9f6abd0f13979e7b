"""``shimd``, which notes besides how long its event loop was held: ``python -m benchmarks.held_loop FILE serve``.

Two numbers for each step of the loop: seconds by the clock, in which others may have had the processor, and seconds of
this thread's processor time. The longest of both go to the file, as JSON, whenever there is a longer one since the last
SIGUSR2.
"""

import asyncio
import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from shimd.cli.main import main

#: Steps shorter than this are not looked at any further.
_SHORT = 0.002


class Watch:
    """Around every step of the event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._longest = {"wall": 0.0, "processor": 0.0}
        self._run = asyncio.Handle._run

    def install(self) -> None:
        watch = self

        def run(handle: asyncio.Handle) -> None:
            wall, processor = time.perf_counter(), time.thread_time()
            watch._run(handle)
            watch.note("wall", time.perf_counter() - wall)
            watch.note("processor", time.thread_time() - processor)

        asyncio.Handle._run = run  # type: ignore[method-assign, assignment]
        signal.signal(signal.SIGUSR2, self.begin_anew)

    def begin_anew(self, _number: int, _frame: FrameType | None) -> None:
        self._longest = {"wall": 0.0, "processor": 0.0}

    def note(self, kind: str, seconds: float) -> None:
        if seconds > max(_SHORT, self._longest[kind]):
            self._longest[kind] = seconds
            self._path.write_text(json.dumps(self._longest))


if __name__ == "__main__":
    Watch(Path(sys.argv.pop(1))).install()
    raise SystemExit(main())
