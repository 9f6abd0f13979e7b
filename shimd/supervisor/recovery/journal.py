"""The journal: a file for each container and each endpoint, with what the next supervisor has to know of it.

What must survive is the end of a process, not the machine's: nothing is synced, and the files belong on a tmpfs. A file
has two places, which are written in turn: a write that its process does not live to finish costs the last change, never
what stood there before. (Renaming a new file over the old one is as safe, and takes a millisecond on ext4.)

A file that is no record costs the one container that it is of.
"""

import errno
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from shimd.errors import ResourceExhausted, is_shortage, reason
from shimd.log import logger
from shimd.protocol.codec import NotAMessage, encode
from shimd.protocol.journal import VERSION, Record, decode_record, name_of

_log = logger(__name__)
T = TypeVar("T")
_MAGIC = b"shimd\0"
#: Magic, version, serial number of the write, length of what follows and its checksum.
_HEAD = struct.Struct("<6sHQII")
#: Bytes from one place to the other: more than any record has (a request has 4 MiB at the most), and never allocated.
_PLACE = 64 << 20
#: Bytes by which a record may grow that there is always room for, on a full disk, too: an exit, an event, a short exec.
_GROWTH = 2048


class Journal:
    """The files of one directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._serials: dict[str, int] = {}
        """Of the last write of each file."""
        _have_spare()
        self.is_whole = True
        """Whether all that was to be read could be."""

    def write(self, record: Record) -> None:
        """Record a change, in the place of what was recorded before. The first of a file takes room for those after it.

        :raises ResourceExhausted: it is too large
        :raises OSError: there is no room, or as of open(2)
        """
        name = name_of(record)
        data = encode(record)
        if len(data) > _PLACE - _HEAD.size:
            raise ResourceExhausted(f"a record of {len(data)} bytes is too large")
        serial = self._serials.get(name, 0) + 1
        head = _HEAD.pack(_MAGIC, VERSION, serial, len(data), zlib.crc32(data))
        fd = self._open(name, os.O_WRONLY | os.O_CREAT)
        try:
            if serial == 1:
                self._take_room(fd, name, len(data))
            _write(fd, head + data, serial % 2 * _PLACE)
        finally:
            _close(fd)
        self._serials[name] = serial

    def _take_room(self, fd: int, name: str, size: int) -> None:
        """For both places of a new file."""
        try:
            for offset in (0, _PLACE):
                os.posix_fallocate(fd, offset, _HEAD.size + size + _GROWTH)
        except OSError:
            self._unlink(name)
            raise

    def remove(self, record: Record) -> None:
        """Nothing is to be known of it any more."""
        name = name_of(record)
        self._serials.pop(name, None)
        self._unlink(name)

    def read(self) -> Iterator[Record]:
        """All records. What is none is removed, with a sentence in the log; what cannot be read is left where it is.

        :raises OSError: there is no room to read one now
        """
        self.is_whole = True
        for name in sorted(_with_room(lambda: os.listdir(self._directory))):
            try:
                if not stat.S_ISREG((self._directory / name).lstat().st_mode):
                    raise NotAMessage("it is no file")
                fd = self._open(name, os.O_RDONLY)
                try:
                    record, serial = _read(fd)
                finally:
                    _close(fd)
                if name_of(record) != name:
                    raise NotAMessage("it is of another container")
            except NotAMessage as error:
                _log.error("%s is no record, and its container is given up: %s", self._directory / name, error)
                self._unlink(name)
            except OSError as error:
                if is_shortage(error):
                    raise
                _log.error("%s cannot be read, and is left there: %s", self._directory / name, reason(error))
                self.is_whole = False
            else:
                self._serials[name] = serial
                yield record

    def _open(self, name: str, flags: int) -> int:
        """To be closed by :func:`_close`."""
        return _with_room(lambda: os.open(f"{self._directory}/{name}", flags | os.O_CLOEXEC, 0o600))

    def _unlink(self, name: str) -> None:
        with suppress(OSError):  # it is gone, or somebody else's affair: a directory, say
            os.unlink(f"{self._directory}/{name}")


#: A descriptor that is closed when there is no other: what happens is recorded, however many others have.
_spare: int | None = None


def _have_spare() -> None:
    global _spare
    if _spare is None:
        with suppress(OSError):
            _spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _close(fd: int) -> None:
    os.close(fd)
    _have_spare()


def _with_room(action: Callable[[], T]) -> T:
    """Do what takes a descriptor, for which there is always one."""
    global _spare
    try:
        return action()
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE) or _spare is None:
            raise
    os.close(_spare)
    _spare = None
    return action()


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _read(fd: int) -> tuple[Record, int]:
    """The record that was written last, and its serial number.

    :raises NotAMessage: there is none, or it is of a later version
    """
    found = [_read_place(fd, 0), _read_place(fd, _PLACE)]
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
