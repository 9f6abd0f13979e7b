"""A log in memory that outlives its writer: what a socket gave, what is to be sent into it, and how far that has come.

A file without a name (memfd_create(2)), which the keeper has, too. Whoever is killed, between any two instructions,
leaves a log that is whole:

* An *entry* is there once its first word is written, which comes last; the word behind the last entry is zero.
* What is received lands in the log at once, and the kernel itself notes how much (:mod:`shimd.linux.counted`), as it
  does for what is sent: at no moment are bytes in neither place, or in both.
* What is still wanted is written anew into the other half of the file when one is full; then one word says which
  half counts. A half that would be full again soon doubles.

::

    magic | version | start of the half that counts | receiving at | sending at, sent of that before | kernel's counts
    entry: kind and length | id | bytes of it that were sent | data, filled up to 8 bytes
"""

import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

from shimd.errors import ShimdError
from shimd.linux.counted import Counted, Mapping
from shimd.supervisor.shortage import once_there_is_room

VERSION = 1
_MAGIC = int.from_bytes(b"shimdlog", "little")
#: Words of the file.
_MAGIC_AT, _VERSION_AT, _START_AT, _RECEIVING_AT, _SENDING_AT, _SENT_AT = range(6)
_RECEIVED_COUNT, _SENT_COUNT, _HEADER = 64, 128, 256
_ENTRY = 24
#: The least size of a file, and the most that is believed: a client's 1024 calls of 4 MiB each are not.
_LEAST, _MOST = 8192, 1 << 30

#: Bytes of a file that has seen something large.
_LARGE = 1 << 16

#: The kind of entry that :meth:`MemoryLog.receive` makes; others are their owners'.
RECEIVED = 1
_RETIRED = 0xFF


class Torn(ShimdError):
    """What an earlier supervisor left cannot be read."""


class Entry(NamedTuple):
    kind: int
    id: int
    sent: int
    data: bytes


class MemoryLog:
    """
    :ivar fd: to be kept as long as the log is wanted
    """

    def __init__(self, fd: int, mapping: Mapping) -> None:
        self.fd = fd
        self._end = _HEADER
        self._use(mapping)

    @classmethod
    def create(cls, name: str) -> "MemoryLog":
        """
        :raises OSError: there is no memory, or no descriptor
        """
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, _LEAST)
            log = cls(fd, Mapping(fd, _LEAST))
        except BaseException:
            os.close(fd)
            raise
        log._words[_VERSION_AT], log._words[_START_AT] = VERSION, _HEADER
        log._words[_MAGIC_AT] = _MAGIC
        return log

    @classmethod
    def open(cls, fd: int) -> "MemoryLog":
        """A log of an earlier process's; its descriptor, too, if nothing is raised. It wants :meth:`rewrite`.

        :raises Torn: it is none, or another version's
        :raises OSError: there is no memory
        """
        mapping = Mapping(fd, _whole_size(fd))
        try:
            log = cls(fd, mapping)
        except BaseException:
            mapping.close()
            raise
        try:
            log._check()
            log._finish_transfers()
        except BaseException:
            log._release()
            raise
        return log

    def close(self) -> None:
        """Give the memory back, as far as nobody else has the file."""
        if self.fd >= 0:
            self._release()
            os.close(self.fd)
            self.fd = -1

    def scan(self) -> list[tuple[int, int, int, int]]:
        """What is in the log, in order: of each entry place, kind, id, and how many bytes are to be sent."""
        words, place, found = self._words, self._words[_START_AT], []
        while word := words[place >> 3]:
            at, kind, length = place >> 3, word & 0xFF, word >> 8
            if kind != _RETIRED:
                found.append((place, kind, words[at + 1], length - words[at + 2]))
            place += _ENTRY + (length + 7 & ~7)
        return found

    def last_id(self) -> int:
        """Returns the highest id of all entries, with those that are retired; 0: there are none."""
        words, place, last = self._words, self._words[_START_AT], 0
        while word := words[place >> 3]:
            last = max(last, words[(place >> 3) + 1])
            place += _ENTRY + ((word >> 8) + 7 & ~7)
        return last

    def data(self, place: int) -> bytes:
        """Of the entry there."""
        return bytes(self._bytes[place + _ENTRY : place + _ENTRY + (self._words[place >> 3] >> 8)])

    def id(self, place: int) -> int:
        return self._words[(place >> 3) + 1]

    def sent(self, place: int) -> int:
        return self._words[(place >> 3) + 2]

    def left(self, place: int) -> int:
        """How many bytes of the entry are to be sent."""
        word = place >> 3
        return (self._words[word] >> 8) - self._words[word + 2]

    @property
    def end(self) -> int:
        """The place of the next entry."""
        return self._end

    def entry(self, place: int) -> Entry:
        word = place >> 3
        return Entry(self._words[word] & 0xFF, self._words[word + 1], self._words[word + 2], self.data(place))

    def room(self) -> int:
        """How long the data of one more entry may be; negative: there is room for none."""
        return self._limit - self._end

    def append(self, kind: int, id: int, data: bytes) -> int:
        """Add an entry for which there is :meth:`room`; returns its place."""
        place = self._end
        self._bytes[place + _ENTRY : place + _ENTRY + len(data)] = data
        self._commit(place, kind, id, len(data))
        return place

    def retire(self, place: int) -> None:
        """An entry is not wanted any more."""
        word = place >> 3
        self._words[word] = _RETIRED | self._words[word] & ~0xFF

    def receive(self, sock: socket.socket, size: int) -> bytes:
        """Take bytes off the socket, as many as there is :meth:`room` for at most; none are the end of the stream.

        :raises OSError: nothing is there (BlockingIOError), or the connection broke
        """
        place, room = self._end, self._limit - self._end
        start = place + _ENTRY
        self._words[_RECEIVING_AT] = place
        count = self._received.receive(sock.fileno(), start, size if size < room else room)
        if count:
            self._commit(place, RECEIVED, 0, count)
            self._received.clear()
        return bytes(self._bytes[start : start + count])

    def send(self, sock: socket.socket, place: int) -> tuple[int, int]:
        """Send what was not sent yet of an entry's data; how many bytes the socket took, and how many are left.

        An entry must be sent whole before the next is begun with.

        :raises OSError: the socket is full (BlockingIOError), or the connection broke
        """
        words, word = self._words, place >> 3
        before, length = words[word + 2], words[word] >> 8
        self._sent.clear()
        words[_SENT_AT] = before
        words[_SENDING_AT] = place
        count = self._sent.send(sock.fileno(), place + _ENTRY + before, length - before)
        words[word + 2] = before + count
        return count, length - before - count

    def unsend(self, place: int) -> None:
        """What was sent of an entry went into a connection that is gone."""
        self._sent.clear()
        self._words[_SENT_AT] = 0
        self._words[(place >> 3) + 2] = 0

    def rewrite(self, entries: Sequence[Entry], more: int = 0, rest: int = 0) -> list[int]:
        """Let the log have these entries, then all from the place ``rest`` on (0: none), and room for one of ``more``
        bytes; the new places of the entries, then of the rest. That is as fast as memory is copied.

        :raises OSError: there is no memory; the log is as it was
        """
        tail = self._end - rest if rest else 0
        needed = _HEADER + sum(_size(len(entry.data)) for entry in entries) + tail + _size(more) + 8
        start = place = self._start_for(needed)
        places = []
        for kind, id, sent, data in entries:
            word = place >> 3
            self._bytes[place + _ENTRY : place + _ENTRY + len(data)] = data
            self._words[word], self._words[word + 1], self._words[word + 2] = kind | len(data) << 8, id, sent
            places.append(place)
            place += _size(len(data))
        self._bytes[place : place + tail] = self._bytes[rest : rest + tail]
        places.append(place)
        place += tail
        self._words[place >> 3] = 0
        # Places change: what the kernel has counted is in the entries.
        self._received.clear()
        self._sent.clear()
        self._words[_SENDING_AT] = self._words[_SENT_AT] = 0
        self._words[_START_AT] = start
        self._end = place
        self._set_limit()
        return self._shrink(entries, more, places[-1] if tail else 0, needed) or places

    def _start_for(self, needed: int) -> int:
        """Where the entries that stay are to be written: in the other half, which grows if it would soon be full."""
        size = self._mapping.size
        while needed > size * 3 // 8:  # three quarters of a half
            size *= 2
        if size > self._mapping.size:
            if size > _MOST:
                raise OSError(errno.ENOMEM, "the log is too large")
            os.posix_fallocate(self.fd, 0, size)
            self._remap(size)
            return size // 2
        return _HEADER if self._words[_START_AT] >= size // 2 else size // 2

    def _shrink(self, entries: Sequence[Entry], more: int, rest: int, needed: int) -> list[int] | None:
        """Give memory back after something large; the entries' new places, if they have moved."""
        size = self._mapping.size
        while size > _LEAST and needed <= size // 16:
            size //= 2
        if size == self._mapping.size:
            return None
        if self._words[_START_AT] != _HEADER:
            return self.rewrite(entries, more, rest)  # into the first half, and back here
        with contextlib.suppress(OSError):
            self._remap(size)
            os.ftruncate(self.fd, size)
        return None

    def wastes(self) -> bool:
        """Returns whether it is large, and much in it may be unwanted: :meth:`rewrite` gives memory back."""
        size = self._mapping.size
        return size > _LARGE and self._end - self._words[_START_AT] > size // 4

    def _remap(self, size: int) -> None:
        mapping = Mapping(self.fd, size)
        self._release()
        self._use(mapping)

    def _use(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._bytes, self._words = mapping.bytes, mapping.words
        self._received = Counted(mapping, _RECEIVED_COUNT)
        self._sent = Counted(mapping, _SENT_COUNT)
        self._set_limit()

    def _set_limit(self) -> None:
        """Where the data of the last entry of this half has to end."""
        size = self._mapping.size
        self._limit = (size if self._words[_START_AT] >= size // 2 else size // 2) - _ENTRY - 8

    def _release(self) -> None:
        self._received.close()
        self._sent.close()
        self._mapping.close()

    def _commit(self, place: int, kind: int, id: int, length: int) -> None:
        words, word = self._words, place >> 3
        end = place + _ENTRY + (length + 7 & ~7)
        words[end >> 3] = 0
        words[word + 1], words[word + 2] = id, 0
        words[word] = kind | length << 8
        self._end = end

    def _check(self) -> None:
        """
        :raises Torn: it is not to be believed
        """
        words, size = self._words, self._mapping.size
        if words[_MAGIC_AT] != _MAGIC:
            raise Torn("it is no log of shimd's")
        if words[_VERSION_AT] != VERSION:
            raise Torn(f"it is of version {words[_VERSION_AT]}, and this shimd reads {VERSION}")
        place = words[_START_AT]
        if place < _HEADER or place % 8 or place > size - 8:
            raise Torn("it begins nowhere")
        while word := words[place >> 3]:
            place += _size(word >> 8)
            if place > size - 8:
                raise Torn("an entry is longer than the log")
        self._end = place

    def _finish_transfers(self) -> None:
        """Take over what the kernel has counted, and the dead process had not."""
        place, received = self._end, self._received.count
        if received and self._words[_RECEIVING_AT] == place:
            if place + _size(received) > self._mapping.size - 8:
                raise Torn("more was received than there is room for")
            self._commit(place, RECEIVED, 0, received)
        self._received.clear()
        sent = self._words[_SENT_AT] + self._sent.count
        for place, _kind, _id, _left in self.scan():
            _, _, done, data = self.entry(place)
            done = max(done, sent) if place == self._words[_SENDING_AT] else done
            self._words[(place >> 3) + 2] = min(done, len(data))


async def reopened(fd: int, name: str) -> MemoryLog:
    """:meth:`MemoryLog.open`, once there is memory for it.

    :param name: whose it is, for the log
    :raises Torn, OSError: it is none
    """
    return await once_there_is_room(lambda: MemoryLog.open(fd), f"taking over {name}")


def _size(length: int) -> int:
    """Bytes that an entry takes."""
    return _ENTRY + (length + 7 & ~7)


def _whole_size(fd: int) -> int:
    size = os.fstat(fd).st_size
    if not _LEAST <= size <= _MOST or size % 16:
        raise Torn(f"it has {size} bytes")
    return size
