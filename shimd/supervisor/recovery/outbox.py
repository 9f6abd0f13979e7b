"""The events that one containerd has not taken yet, in memory that the keeper has, too.

Each is there as the very frame that containerd is to get, with a stream id made of its sequence number, so that a
successor goes on within a frame on the same connection, and knows what an answer is about.
"""

import contextlib
import socket
from collections import deque

from shimd.supervisor.recovery.memory_log import RECEIVED, Entry, MemoryLog, Torn
from shimd.ttrpc import frames
from shimd.ttrpc.envelope import DecodeError, Request
from shimd.ttrpc.frames import Frame, FrameReader, FrameType

#: Kinds of entries: a frame that is to be sent, by its sequence number; the last number there was.
_EVENT, _LAST = 2, 3
#: A read with less room than this makes room first.
_LITTLE = 512


class Outbox:
    """
    :ivar last_seq: the last number that was appended, in whatever process
    """

    def __init__(self, log: MemoryLog) -> None:
        """
        :param log: new, or as :meth:`MemoryLog.open` gave it
        :raises Torn: what is in it makes no sense
        """
        self._log = log
        self.last_seq = log.last_id()
        #: Their places, less :attr:`_moved`: what is moved together need not be gone through.
        self._events: deque[int] = deque()
        self._moved = 0
        #: Places of what was received and is not done with.
        self._received: list[int] = []
        for place, kind, id, _left in log.scan():
            if kind not in (RECEIVED, _EVENT, _LAST):
                raise Torn("it has entries of an unknown kind")
            if kind == _EVENT:
                _check_event(log.data(place), id)
                self._events.append(place)
            if kind == RECEIVED:
                self._received.append(place)
        with contextlib.suppress(OSError):  # no memory for it now
            self._rewrite(0)

    @property
    def fd(self) -> int:
        return self._log.fd

    def __len__(self) -> int:
        return len(self._events)

    def append(self, seq: int, request: Request) -> None:
        """
        :param seq: greater than all before
        :raises OSError: there is no memory for it
        """
        frame = frames.encode(FrameType.REQUEST, 0, stream_of(seq), request.encode())
        if self._log.room() < len(frame):
            self._rewrite(len(frame))
        self._events.append(self._log.append(_EVENT, seq, frame) - self._moved)
        self.last_seq = seq

    def skip(self, seq: int) -> None:
        """Count as appended what was numbered so, in another outbox.

        :raises OSError: there is no memory for it
        """
        before, self.last_seq = self.last_seq, max(self.last_seq, seq)
        try:
            self._rewrite(0)
        except OSError:
            self.last_seq = before
            raise

    @property
    def stream_id(self) -> int:
        """Of the oldest event."""
        return stream_of(self._log.id(self._place()))

    @property
    def begun(self) -> bool:
        """Returns whether some of the oldest was sent."""
        return self._log.sent(self._place()) > 0

    def send(self, sock: socket.socket) -> bool:
        """Send what was not sent yet of the oldest, as much as the socket takes; whether that was all.

        :raises OSError: the connection broke
        """
        place = self._place()
        if not self._log.left(place):
            return True
        try:
            _count, left = self._log.send(sock, place)
        except BlockingIOError:
            return False
        return not left

    def receive(self, sock: socket.socket) -> bytes:
        """Take what there is off the socket; it stays here until :meth:`taken`. None is the end of the stream.

        :raises OSError: nothing is there, or there is no memory now (BlockingIOError); or the connection broke
        """
        if self._log.room() < _LITTLE:
            try:
                self._rewrite(_LITTLE)
            except OSError as error:
                raise BlockingIOError(error.errno, error.strerror) from error
        place = self._log.end
        data = self._log.receive(sock, _LITTLE)
        if data:
            self._received.append(place)
        return data

    def received(self) -> bytes:
        """What was received and is not done with."""
        return b"".join(map(self._log.data, self._received))

    def taken(self) -> None:
        """The oldest event has had its answer, which was the last to be received."""
        self._log.retire(self._place())
        self._events.popleft()
        self._forget_received()
        if not self._events and self._log.wastes():
            with contextlib.suppress(OSError):
                self._rewrite(0)

    def drop_oldest(self) -> Request:
        """Give up the oldest that is not on its way; there must be one."""
        index = 1 if self.begun else 0
        place = self._place(index)
        frame = self._log.data(place)
        del self._events[index]
        self._log.retire(place)
        return _request(frame)

    def oldest(self) -> Request:
        return _request(self._log.data(self._place()))

    def disconnected(self) -> None:
        """What went over the connection may never have arrived."""
        self._forget_received()
        if self._events:
            self._log.unsend(self._place())

    def close(self) -> None:
        self._log.close()

    def _forget_received(self) -> None:
        for place in self._received:
            self._log.retire(place)
        self._received.clear()

    def _place(self, index: int = 0) -> int:
        return self._events[index] + self._moved

    def _rewrite(self, more: int) -> None:
        """Move all from the second event on together: what is retired lies before it, but for answers, which are
        small. Of tens of thousands of events each by itself would hold the loop up."""
        rest = self._place(1) if len(self._events) > 1 else 0
        kept = [Entry(_LAST, self.last_seq, 0, b"")]
        received = [place for place in self._received if not rest or place < rest]
        places = self._log.rewrite(
            kept + [self._log.entry(place) for place in [*received, *([self._place()] if self._events else [])]],
            more,
            rest,
        )
        moved = places[-1] - rest if rest else 0
        self._received = places[1 : 1 + len(received)] + [place + moved for place in self._received[len(received) :]]
        if self._events:
            self._moved += moved
            self._events[0] = places[-2] - self._moved


def stream_of(seq: int) -> int:
    """Stream ids are odd, and go up until they begin anew."""
    return 2 * (seq % (1 << 31)) + 1


def _check_event(frame: bytes, seq: int) -> None:
    try:
        _request(frame, stream_of(seq))
    except (DecodeError, Torn):
        raise Torn("an event is none") from None


def _request(frame: bytes, stream_id: int | None = None) -> Request:
    reader = FrameReader()
    reader.feed(frame)
    whole = reader.next()
    if not isinstance(whole, Frame) or reader.unconsumed or stream_id not in (None, whole.stream_id):
        raise Torn("an event is none")
    return Request.decode(whole.data)
