"""A fork server → who finds it gone: how its workers have ended, of which nobody has let it forget.

A file beside its socket, which it writes to before it waits for a worker: then the zombie is the keeper's to wait for,
or what it was is here. A place of the file has an exit, or nothing.
"""

import os
import struct
from contextlib import suppress
from pathlib import Path

#: pid, start time, wait status, nanoseconds since the epoch; a pid of 0: nothing.
_EXIT = struct.Struct("=qQqq")


class NotedExits:
    """The fork server's end. A full disk costs what only the death of us both with the supervisor would have told.

    :param path: ``None``: nothing is noted
    """

    def __init__(self, path: Path | None) -> None:
        self._fd = -1
        self._places: dict[tuple[int, int], int] = {}
        self._free: list[int] = []
        if path is not None:
            with suppress(OSError):
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def note(self, pid: int, start: int, status: int, at: int) -> None:
        place = self._places[pid, start] = self._free.pop() if self._free else len(self._places)
        self._write(place, _EXIT.pack(pid, start, status, at))

    def forget(self, pid: int, start: int) -> None:
        place = self._places.pop((pid, start), None)
        if place is not None:
            self._free.append(place)
            self._write(place, bytes(_EXIT.size))

    def _write(self, place: int, data: bytes) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                os.pwrite(self._fd, data, place * _EXIT.size)


def take(path: Path) -> dict[tuple[int, int], tuple[int, int]]:
    """What is noted there, by pid and start time: wait statuses and times; and remove the file. A place that was not
    written whole says nothing."""
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    path.unlink(missing_ok=True)
    whole = data[: len(data) // _EXIT.size * _EXIT.size]
    return {(pid, start): (status, at) for pid, start, status, at in _EXIT.iter_unpack(whole) if pid}
