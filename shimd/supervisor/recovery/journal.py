"""The journal: a file for each container and each endpoint, with what the next supervisor has to know of it.

What must survive is the end of a process, not the machine's: nothing is synced, and the files belong on a tmpfs. A file
has two places, which are written in turn: a write that its process does not live to finish costs the last change, never
what stood there before. (Renaming a new file over the old one is as safe, and takes a millisecond on ext4.)

A file that cannot be read costs the one container that it is of.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shimd.errors import ResourceExhausted, is_shortage
from shimd.log import logger
from shimd.protocol.codec import NotAMessage, encode
from shimd.protocol.journal import VERSION, Record, decode_record, name_of

_log = logger(__name__)
_MAGIC = b"shimd\0"
#: Magic, version, serial number of the write, length of what follows and its checksum.
_HEAD = struct.Struct("<6sHQII")
#: Bytes from one place to the other: more than any record has (a request has 4 MiB at the most), and never allocated.
_PLACE = 64 << 20
#: Bytes by which a record may grow that there is always room for, on a full disk, too: an exit, an event, a short exec.
_GROWTH = 2048


@dataclass
class _File:
    serial: int


class Journal:
    """The files of one directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._files: dict[str, _File] = {}

    def write(self, record: Record) -> None:
        """Record a change, in the place of what was recorded before. The first of a file takes room for those after it.

        :raises ResourceExhausted: it is too large
        :raises OSError: there is no room, or as of open(2)
        """
        name = name_of(record)
        data = encode(record)
        if len(data) > _PLACE - _HEAD.size:
            raise ResourceExhausted(f"a record of {len(data)} bytes is too large")
        file = self._files.get(name)
        if file is None:
            self._begin(name, len(data))
            file = _File(0)
        head = _HEAD.pack(_MAGIC, VERSION, file.serial + 1, len(data), zlib.crc32(data))
        fd = os.open(self._directory / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _write(fd, head + data, (file.serial + 1) % 2 * _PLACE)
        finally:
            os.close(fd)
        file.serial += 1
        self._files[name] = file

    def _begin(self, name: str, size: int) -> None:
        """Take room for both places of a new file."""
        path = self._directory / name
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for offset in (0, _PLACE):
                os.posix_fallocate(fd, offset, _HEAD.size + size + _GROWTH)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def remove(self, record: Record) -> None:
        """Nothing is to be known of it any more."""
        name = name_of(record)
        self._files.pop(name, None)
        (self._directory / name).unlink(missing_ok=True)

    def read(self) -> Iterator[Record]:
        """All records. What is none is removed, with a sentence in the log.

        :raises OSError: something has run out, so that nothing is known of one
        """
        for path in sorted(self._directory.iterdir()):
            try:
                record, serial = _read(path)
                if name_of(record) != path.name:
                    raise NotAMessage("it is of another container")
            except (OSError, NotAMessage) as error:
                if isinstance(error, OSError) and is_shortage(error):
                    raise
                _log.error("%s cannot be read, and its container is given up: %s", path, error)
                path.unlink(missing_ok=True)
                continue
            self._files[path.name] = _File(serial)
            yield record


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _read(path: Path) -> tuple[Record, int]:
    """The record that was written last, and its serial number.

    :raises NotAMessage: there is none, or it is of a later version
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        found = [_read_place(fd, 0), _read_place(fd, _PLACE)]
    finally:
        os.close(fd)
    whole = [one for one in found if one is not None]
    if not whole:
        raise NotAMessage("it has no whole record")
    serial, version, data = max(whole)
    if version > VERSION:
        raise NotAMessage(f"it is of version {version}, and this shimd knows {VERSION}")
    return decode_record(data), serial


def _read_place(fd: int, offset: int) -> tuple[int, int, bytes] | None:
    head = os.pread(fd, _HEAD.size, offset)
    if len(head) < _HEAD.size:
        return None
    magic, version, serial, length, checksum = _HEAD.unpack(head)
    if magic != _MAGIC or length > _PLACE - _HEAD.size:
        return None
    data = os.pread(fd, length, offset + _HEAD.size)
    return (serial, version, data) if len(data) == length and zlib.crc32(data) == checksum else None
