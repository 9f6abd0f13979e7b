"""The log of one connection of containerd's (:class:`shimd.ttrpc.log.Log`), in memory that the keeper has, too."""

import errno
import socket
import struct
from collections import deque
from collections.abc import Callable

from shimd.log import logger
from shimd.supervisor.recovery.memory_log import RECEIVED, Entry, MemoryLog, Torn
from shimd.ttrpc.frames import MAX_DATA, REMOTE_CLOSED, FrameType

_log = logger(__name__)
_HEADER = struct.Struct(">IIBB")
#: Kinds of entries: a frame of ours, and how much is still to come of a frame that is too large and is thrown away.
_ANSWER, _SKIPPED = 2, 3
#: A read with less room than this makes room first.
_LITTLE = 1024


class RequestLog:
    """
    :ivar replay: what an earlier process received and did not answer: requests, and what there is of the next
    :ivar unsent: bytes of responses that the kernel has not taken
    """

    def __init__(self, log: MemoryLog, on_end: Callable[[], None] = lambda: None) -> None:
        """
        :param log: new, or as :meth:`MemoryLog.open` gave it
        :raises Torn: what is in it makes no sense
        """
        self._log, self._on_end = log, on_end
        #: Frames to be sent, by their places; those for which there was no memory, themselves.
        self._queue: deque[int | _Loose] = deque()
        if not {kind for _place, kind, _id, _left in log.scan()} <= {RECEIVED, _ANSWER, _SKIPPED}:
            raise Torn("it has entries of an unknown kind")
        self.replay = self._rewrite(0)
        entries = log.scan()
        if any(kind == _SKIPPED for _place, kind, _id, _left in entries):
            raise Torn("its client is in the middle of a frame that is too large")
        self.unsent = sum(left for _place, kind, _id, left in entries if kind == _ANSWER)

    @property
    def fd(self) -> int:
        return self._log.fd

    def receive(self, sock: socket.socket, size: int) -> bytes:
        if self._log.room() < _LITTLE:
            self._make_room(_LITTLE)
            if self._log.room() <= 0:
                raise BlockingIOError(errno.ENOMEM, "no memory for a request")
        return self._log.receive(sock, size)

    def answering(self, frame: bytes) -> None:
        size = len(frame)
        self.unsent += size
        if self._log.room() < size:
            self._make_room(size)
            if self._log.room() < size:  # its request is made again if we are killed now
                self._queue.append(_Loose(frame))
                return
        self._queue.append(self._log.append(_ANSWER, _ends(frame), frame))

    def send(self, sock: socket.socket) -> int:
        total = 0
        try:
            while self._queue:
                first = self._queue[0]
                count, left = first.send(sock) if isinstance(first, _Loose) else self._log.send(sock, first)
                total += count
                self.unsent -= count
                if left:
                    break
                self._queue.popleft()
        except BlockingIOError:
            pass
        if not self._queue and self._log.wastes():
            self._make_room(0)
        return total

    def ended(self) -> None:
        self._on_end()

    def close(self) -> None:
        self._log.close()

    def _make_room(self, size: int) -> None:
        try:
            self._rewrite(size)
        except OSError as error:
            _log.error("no memory for a connection's log: %s", error)

    def _rewrite(self, more: int) -> bytes:
        """Keep nothing but what a successor needs; what there is of requests."""
        answered, unsent, received = set(), [], []
        for place, kind, id, left in self._log.scan():
            if kind != _ANSWER:
                received.append((place, kind))
                continue
            answered.add(id)
            if left:
                unsent.append(place)
        requests, skipped = _unanswered(self._log, answered, received)
        kept = [Entry(RECEIVED, 0, 0, requests)] if requests else []
        if skipped:
            kept.append(Entry(_SKIPPED, 0, 0, skipped.to_bytes(8, "little")))
        answers = [self._log.entry(place) for place in unsent]
        places = iter(self._log.rewrite(kept + answers, more)[len(kept) : -1])
        self._queue = deque(one if isinstance(one, _Loose) else next(places) for one in self._queue)
        self._queue.extend(places)  # an earlier process's
        return requests


class _Loose:
    """A frame that is in no log."""

    def __init__(self, frame: bytes) -> None:
        self._left = memoryview(frame)

    def send(self, sock: socket.socket) -> tuple[int, int]:
        count = sock.send(self._left, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        self._left = self._left[count:]
        return count, len(self._left)


def _unanswered(log: MemoryLog, answered: set[int], places: list[tuple[int, int]]) -> tuple[bytes, int]:
    """The requests that wait for their answer, then what there is of the next frame; and how many bytes still to come
    are of a frame that is too large.

    :param places: of what was received, with their kinds
    :raises Torn: the entries make no sense together
    """
    requests: list[bytes] = []
    skipped, data = 0, []
    for place, kind in places:
        if kind == RECEIVED:
            data.append(log.data(place))
            continue
        rest, more = _take_frames(b"".join(data), answered, requests)
        if rest or more:
            raise Torn("a frame ends nowhere")
        skipped, data = int.from_bytes(log.data(place), "little"), []
    whole = b"".join(data)
    if skipped and len(whole) <= skipped:
        return b"".join(requests), skipped - len(whole)
    rest, skipped = _take_frames(whole[skipped:], answered, requests)
    return b"".join(requests) + rest, skipped


def _ends(frame: bytes) -> int:
    """The stream that a frame of ours ends, which has its answer then; 0, which is none: it ends none."""
    _length, stream_id, frame_type, flags = _HEADER.unpack_from(frame)
    return stream_id if frame_type == FrameType.RESPONSE or flags & REMOTE_CLOSED else 0


def _take_frames(data: bytes, answered: set[int], requests: list[bytes]) -> tuple[bytes, int]:
    """Collect requests; what is left of a frame that has begun, and how much is to come of one that is too large.
    Data on streams is dropped: streams end with their process."""
    place = 0
    while len(data) - place >= _HEADER.size:
        length, stream_id, frame_type, _flags = _HEADER.unpack_from(data, place)
        end = place + _HEADER.size + length
        if end > len(data):
            if length > MAX_DATA:
                return b"", end - len(data)
            break
        if frame_type == FrameType.REQUEST and stream_id not in answered and length <= MAX_DATA:
            requests.append(data[place:end])
        place = end
    return data[place:], 0
