"""Events on their way to one containerd: one at a time, in order, over a connection that outlives the supervisor.

An event leaves the outbox when containerd has answered. What a supervisor that was killed had sent, its successor waits
for on the same connection. Sent twice is only what was on its way when the connection itself broke, whose answer nobody
can know: containerd then has ended, as a rule, and forgotten it.
"""

import contextlib
import socket
from collections import deque

import anyio
from anyio.abc import SocketAttribute, SocketStream, UNIXSocketStream
from tenacity import AsyncRetrying, before_sleep_log, retry_if_exception_type, wait_exponential

from shimd.api.containerd.services.events.ttrpc.v1 import ForwardRequest
from shimd.log import logger
from shimd.supervisor.recovery.keeping import Keeping
from shimd.supervisor.recovery.memory_log import MemoryLog, reopened
from shimd.supervisor.recovery.outbox import Outbox
from shimd.ttrpc import ConnectionClosed, RemoteProtocolError, TtrpcError
from shimd.ttrpc.envelope import DecodeError as EnvelopeError
from shimd.ttrpc.envelope import Request, Response, Status
from shimd.ttrpc.frames import Frame, FrameReader, FrameType

_log = logger(__name__)
#: Events kept for a containerd that is away; beyond, the oldest are dropped (and that is logged).
BACKLOG = 65536
#: Seconds until memory that there was not is asked for again.
_PAUSE, _MOMENT = 1.0, 0.05
#: Seconds without an answer, up to twice as many, until the log says so. There is no limit: whoever sends the event
#: anew while the first connection may still be read has it come twice, and after those that follow it.
_LATE = 60.0
_SERVICE, _METHOD = "containerd.services.events.ttrpc.v1.Events", "Forward"


class Forwarder:
    """
    :param address: containerd's, with or without ``unix://``
    :param name: under which the keeper has the outbox and the connection
    :ivar resumed: whether it is known what an earlier supervisor has put here
    :ivar dropped: events that containerd will not have, since it was away too long
    """

    def __init__(self, address: str, keeper: Keeping, name: str) -> None:
        self._address = address.removeprefix("unix://")
        self._keeper, self._name = keeper, name
        self._outbox: Outbox | None = None
        self._stream: SocketStream | None = None
        #: What there is no memory for in the outbox: behind all that is in there.
        self._waiting: deque[tuple[int, Request]] = deque()
        self._reader = FrameReader()
        self._filled = anyio.Event()
        self._last_seq = self._skipped = 0
        self._last_stream = self._asked = 0
        self.resumed = False
        self.dropped = 0

    def begin(self) -> None:
        """Have the keeper know of the outbox before the first event is written down: who finds none then knows that
        it was lost."""
        self._store()

    def skip(self, seq: int) -> None:
        """Count an event of that number as put here."""
        self._last_seq = self._skipped = max(self._last_seq, seq)
        self._store()

    async def resume(self, fds: list[int]) -> None:
        """Take over what an earlier supervisor had: its outbox, and its connection if it had one. The descriptors that
        have become ours are taken off the list.

        :raises Torn, OSError: it cannot be
        """
        log = await reopened(fds[0], f"the outbox for containerd at {self._address}")
        del fds[0]
        try:
            self._outbox = Outbox(log)
        except BaseException:
            self._keeper.drop(self._name)
            log.close()
            raise
        self._last_seq = self._outbox.last_seq
        self.resumed = True
        if not fds:
            self._outbox.disconnected()
            return
        sock = socket.socket(fileno=fds[0])
        del fds[0]
        try:
            self._stream = await UNIXSocketStream.from_socket(sock)
            self._reader.feed(self._outbox.received())
        except (OSError, ValueError):  # it is not connected any more
            self._keep(self._outbox, None)
            self._outbox.disconnected()
            sock.close()

    def __len__(self) -> int:
        return len(self._waiting) + (len(self._outbox) if self._outbox is not None else 0)

    @property
    def last_seq(self) -> int:
        """The number of the last event that was put here."""
        return self._last_seq

    def put(self, seq: int, request: bytes) -> None:
        """Add an event; one that is not after the last gets the next number.

        :param request: a ForwardRequest
        """
        if len(self) >= BACKLOG:
            self._drop_oldest()
        self._last_seq = max(seq, self._last_seq + 1)
        self._waiting.append((self._last_seq, Request(_SERVICE, _METHOD, request)))
        self._store()
        self._filled.set()

    async def run(self) -> None:
        retry = AsyncRetrying(
            retry=retry_if_exception_type((OSError, TtrpcError)),
            wait=wait_exponential(multiplier=0.05, max=2),
            before_sleep=before_sleep_log(_log, 10),
        )
        try:
            while True:
                await retry(self._connected)
        finally:  # the keeper has it, too; and the outbox stays open for what is published to the last
            if self._stream is not None:
                await anyio.aclose_forcefully(self._stream)

    async def watch(self) -> None:
        """Tell the log of an answer that does not come."""
        while True:
            asked = self._asked
            await anyio.sleep(_LATE)
            if asked and asked == self._asked:
                _log.error("containerd at %s has not answered an event within %g s: others wait", self._address, _LATE)

    def close(self) -> None:
        """Nothing is put here any more; the keeper has what there is."""
        if self._stream is not None:  # it was resumed, and run() cancelled before it began
            self._stream.extra(SocketAttribute.raw_socket).close()
        if self._outbox is not None:
            self._outbox.close()

    async def _connected(self) -> None:
        """Forward over one connection until it breaks."""
        outbox = await self._filled_outbox()
        if self._stream is None:
            self._stream = await anyio.connect_unix(self._address)
            self._reader, self._last_stream = FrameReader(), 0
            self._keep(outbox, self._stream)
        sock = self._stream.extra(SocketAttribute.raw_socket)
        try:
            while True:
                await self._forward(await self._filled_outbox(), sock)
        except (OSError, TtrpcError):
            await self._disconnect(outbox, self._stream)
            raise

    async def _disconnect(self, outbox: Outbox, stream: SocketStream) -> None:
        """In this order: a successor must not go on with a connection for which nothing is noted as sent."""
        self._stream = None
        self._asked = 0
        self._keep(outbox, None)
        outbox.disconnected()
        await anyio.aclose_forcefully(stream)

    def _keep(self, outbox: Outbox, stream: SocketStream | None) -> None:
        sockets = [] if stream is None else [stream.extra(SocketAttribute.raw_socket).fileno()]
        self._keeper.keep(self._name, [outbox.fd, *sockets])

    async def _forward(self, outbox: Outbox, sock: socket.socket) -> None:
        """Send the oldest event, or what was not sent of it, and wait for the answer."""
        if not outbox.begun:
            self._check(outbox, sock)
        while not outbox.send(sock):
            await anyio.wait_writable(sock)
        self._last_stream = outbox.stream_id
        self._asked = self._last_stream
        status = await self._answer(outbox, sock, self._last_stream)
        self._asked = 0
        if status.code:  # containerd has seen it and refuses it: the same again would be refused again
            topic = _topic(outbox.oldest())
            _log.error("containerd at %s refused %s: %s", self._address, topic, status.message)
        outbox.taken()

    def _check(self, outbox: Outbox, sock: socket.socket) -> None:
        """Before an event goes on its way: better a connection that is gone already than one that is about to be.

        :raises TtrpcError: another connection is needed
        """
        if outbox.stream_id <= self._last_stream:
            raise ConnectionClosed("no stream ids are left on this connection")
        with contextlib.suppress(BlockingIOError):
            sock.recv(1, socket.MSG_PEEK)  # as a rule nothing is there, which costs less to learn so
            self._receive(outbox, sock)

    async def _answer(self, outbox: Outbox, sock: socket.socket, stream_id: int) -> Status:
        while True:
            while (frame := self._reader.next()) is not None:
                if frame.stream_id == stream_id:  # others are answers that an earlier supervisor has noted already
                    return _status(frame)
            await anyio.wait_readable(sock)
            try:
                self._receive(outbox, sock)
            except BlockingIOError:
                await anyio.sleep(_MOMENT)

    def _receive(self, outbox: Outbox, sock: socket.socket) -> None:
        data = outbox.receive(sock)
        if not data:
            raise ConnectionClosed(f"containerd at {self._address} closed the connection")
        self._reader.feed(data)

    async def _filled_outbox(self) -> Outbox:
        """The outbox, once an event is in it."""
        while True:
            self._store()
            if self._outbox:
                return self._outbox
            if self._waiting:
                await anyio.sleep(_PAUSE)
                continue
            self._filled = anyio.Event()
            await self._filled.wait()

    def _store(self) -> None:
        """Bring what waits for memory into the outbox."""
        try:
            if self._outbox is None:
                self._outbox = Outbox(MemoryLog.create("shimd-events"))
                self._keep(self._outbox, None)
            if self._outbox.last_seq < self._skipped:
                self._outbox.skip(self._skipped)
            while self._waiting:
                self._outbox.append(*self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            _log.error("events for containerd at %s wait for memory: %s", self._address, error)

    def _drop_oldest(self) -> None:
        if self._outbox and (len(self._outbox) > 1 or not self._outbox.begun):
            lost = self._outbox.drop_oldest()
        else:
            _seq, lost = self._waiting.popleft()
        self.dropped += 1
        _log.error("containerd at %s is away too long: dropped %s", self._address, _topic(lost))


def _topic(request: Request) -> str:
    try:
        envelope = ForwardRequest.parse(request.payload).envelope
    except Exception:  # whatever a protobuf library raises for garbage
        return "an event"
    return envelope.topic if envelope is not None else "an event"


def _status(frame: object) -> Status:
    """
    :raises RemoteProtocolError: it is no answer
    """
    if not isinstance(frame, Frame) or frame.type != FrameType.RESPONSE:
        raise RemoteProtocolError("containerd answered an event with something else than a response")
    try:
        return Response.decode(frame.data).status
    except EnvelopeError as error:
        raise RemoteProtocolError(f"containerd's answer to an event is none: {error}") from None
