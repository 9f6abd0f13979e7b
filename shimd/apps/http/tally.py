"""Counts what an app answers, for the daemon (:mod:`shimd.formats.tally`)."""

import bisect
import mmap
import os
import time
from contextlib import suppress
from typing import Any

from shimd.apps.http.handler import AsgiReceive, AsgiScope, AsgiSend
from shimd.formats import tally
from shimd.wasi.http.in_process import AsgiApplication

_WORD = 8
_CLASSES = len(tally.MAGIC)
_TIME = _CLASSES + tally.CLASSES * _WORD
_BUCKETS = _TIME + _WORD


class Tallies:
    """Of the processes that serve an app. To be made before they are forked."""

    def __init__(self, processes: int) -> None:
        self._memory: mmap.mmap | None = None
        with suppress(OSError):  # an app need not be counted
            fd = os.memfd_create(tally.NAME, os.MFD_CLOEXEC)
            size = tally.SLOT * min(processes, tally.MOST)
            os.ftruncate(fd, size)
            self._memory = mmap.mmap(fd, size)  # which has a descriptor of its own, by which it is found
            os.close(fd)

    def counted(self, number: int, application: AsgiApplication) -> AsgiApplication:
        """Returns what serves in a process in place of an application.

        :param number: the process's, from 0
        """
        if self._memory is None or number >= tally.MOST:
            return application
        memory = memoryview(self._memory)[number * tally.SLOT : (number + 1) * tally.SLOT]
        memory[: len(tally.MAGIC)] = tally.MAGIC

        def add(at: int, amount: int) -> None:
            value = int.from_bytes(memory[at : at + _WORD], "little") + amount
            memory[at : at + _WORD] = value.to_bytes(_WORD, "little")

        async def counting(scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
            begun, status = time.monotonic_ns(), 0

            def count() -> None:
                taken = (time.monotonic_ns() - begun) // 1000
                kind = min(max(status // 100, 1), tally.CLASSES) - 1
                add(_CLASSES + kind * _WORD, 1)
                add(_TIME, taken)
                add(_BUCKETS + bisect.bisect_left(tally.BOUNDS, taken) * _WORD, 1)

            async def noting(message: dict[str, Any]) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    count()
                await send(message)

            try:
                await application(scope, receive, noting)
            finally:
                if not status:  # the server answers for it
                    status = 500
                    count()

        return counting
