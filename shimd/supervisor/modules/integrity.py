"""Whether an entry of the cache is what was put there: machine code is believed only then.

Its digest stands beside what was compiled, written by the supervisor. Reading all of it takes as long as it is large:
that is done once for each daemon. What it was then is noted, as the kernel tells it (inode, times, size, owner), which
takes microseconds to compare: whatever changes a file changes its ctime.
"""

import hashlib
import os
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

import anyio

from shimd.errors import Unavailable, is_shortage
from shimd.formats.digest import add_part
from shimd.supervisor.threads import in_thread

DIGEST_FILE = "digest"
#: Seconds after which the cache's disk is taken for one that hangs.
_DISK = 120.0
Record = Mapping[str, tuple[int, ...]]
"""Of each file and directory below an entry, by its path."""


class Integrity:
    """What a daemon knows of its cache's entries."""

    def __init__(self) -> None:
        self._known: dict[Path, Record] = {}
        self._busy: dict[Path, anyio.Lock] = {}

    def note(self, entry: Path, record: Record | None) -> None:
        """It was sound when that was recorded; ``None``: that is not known."""
        if record is None:
            self.forget(entry)
        else:
            self._known[entry] = record

    def forget(self, entry: Path) -> None:
        self._known.pop(entry, None)

    async def is_sound(self, entry: Path) -> bool:
        """Returns whether an entry is what was put there.

        :raises Unavailable: a directory that it is in is not root's alone, or its disk hangs
        :raises OSError: descriptors or memory are short
        """
        if self._is_known(entry):
            return True
        async with self._alone(entry):
            if self._is_known(entry):
                return True
            record = await in_thread(partial(examined, entry), f"reading {entry}", limit=_DISK, cancellable=True)
            self.note(entry, record)
            return record is not None

    def _is_known(self, entry: Path) -> bool:
        record = self._known.get(entry)
        if record is None:
            return False
        try:
            return all(_state(os.lstat(path)) == state for path, state in record.items())
        except OSError:
            return False

    @asynccontextmanager
    async def _alone(self, entry: Path) -> AsyncIterator[None]:
        lock = self._busy.setdefault(entry, anyio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._busy.pop(entry, None)


def examined(entry: Path) -> Record | None:
    """Read an entry; returns its record, or ``None``: it is not what was put there, or has gone.

    :raises Unavailable: a directory that it is in is not root's alone
    :raises OSError: descriptors or memory are short, which says nothing of the entry
    """
    for directory in (entry.parent, entry.parent.parent):
        with suppress(FileNotFoundError):
            if not _is_ours(os.lstat(directory)):
                raise Unavailable(f"{directory} is not root's alone, as the cache has to be: remove it")
    try:
        before = record_of(entry)
        told = (entry / DIGEST_FILE).read_text()
        if told != digest_of(entry) or record_of(entry) != before:
            return None
    except ValueError:
        return None
    except OSError as error:
        if is_shortage(error):
            raise
        return None
    return before


def seal(entry: Path) -> Path:
    """Write the digest of an entry that is being made; returns its file.

    :raises FileExistsError: who made it has left something of that name
    """
    digest = digest_of(entry)
    path = entry / DIGEST_FILE
    with open(path, "x") as file:
        file.write(digest)
    path.chmod(0o644)
    return path


def record_of(entry: Path) -> Record:
    """:raises ValueError: something in it is another's, or others may write to it, or it is no file"""
    record = {}
    for path in _below(entry):
        status = os.lstat(path)
        if not _is_ours(status):
            raise ValueError(f"{path} is another user's, or may be written by others")
        record[path] = _state(status)
    return record


def digest_of(entry: Path) -> str:
    """The SHA-256 of all files below, with their paths and sizes; but for that of the digest itself."""
    whole = hashlib.sha256()
    for path in _below(entry):
        name, status = os.path.relpath(path, entry), os.lstat(path)
        if name == DIGEST_FILE or not stat.S_ISREG(status.st_mode):
            continue
        with open(path, "rb") as file:
            whole.update(f"{name}\0{status.st_size}\0".encode(errors="surrogateescape"))
            add_part(whole, file.fileno(), 0, status.st_size)
    return whole.hexdigest()


def _below(entry: Path) -> Iterator[str]:
    """Paths of what is below, in order; not the entry itself, which is touched when it is used."""
    for directory, below, files in os.walk(entry, onerror=_fail):
        below.sort()
        yield from (os.path.join(directory, name) for name in sorted((*below, *files)))


def _fail(error: OSError) -> NoReturn:
    raise error


def _is_ours(status: os.stat_result) -> bool:
    kind = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return kind and status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _state(status: os.stat_result) -> tuple[int, ...]:
    return (
        *(status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )
