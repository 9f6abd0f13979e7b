"""A ttrpc server above any anyio byte stream.

::

    server = Server({"greet.v1.Greeter": {"Hello": Method.unary(hello, HelloRequest.parse, bytes)}})
    await server.serve_stream(stream)      one accepted connection, to its end
    await server.serve(listener)           all that a listener accepts

Each call runs in a task of its own, many at a time on one connection.
"""

import errno
import logging

import anyio
from anyio.abc import ByteStream, Listener

from shimd.ttrpc.accept import accept_all
from shimd.ttrpc.limits import DEFAULT_LIMITS, Limits
from shimd.ttrpc.method import Services
from shimd.ttrpc.session import Session

_logger = logging.getLogger("shimd.ttrpc")

#: What accept(2) says when the process or the machine is short of something; it passes.
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_RETRY_SECONDS = 0.1


class Server:
    """Services, and the connections that they are served on."""

    def __init__(self, services: Services, limits: Limits = DEFAULT_LIMITS) -> None:
        self._services = services
        self._limits = limits
        self._sessions: set[Session] = set()
        self._accepting: set[anyio.CancelScope] = set()
        self._stopping = False
        self._changed = anyio.Event()

    async def serve_stream(self, stream: ByteStream) -> None:
        """Serve one accepted connection until the peer closes it, or the server is shut down; then close the stream.
        Nothing that the peer does raises an exception."""
        await self.run(self.open(stream))

    def open(self, stream: ByteStream, replay: bytes = b"") -> Session:
        """The connection as an object, for who wants to :meth:`~Session.detach` it; :meth:`run` it next.

        :param replay: what :meth:`~Session.detach` gave, if the socket comes from there
        """
        return Session(self._services, stream, self._limits, replay)

    async def run(self, session: Session) -> None:
        """Serve a connection made by :meth:`open` to its end."""
        self._sessions.add(session)
        if self._stopping:
            session.stop()
        try:
            await session.run()
        finally:
            self._sessions.remove(session)
            self._changed.set()
            self._changed = anyio.Event()

    async def serve(self, listener: Listener[ByteStream]) -> None:
        """Serve all connections of a listener until the server is shut down. Closes the listener."""
        async with listener, anyio.create_task_group() as connections:
            with anyio.CancelScope() as scope:
                self._accepting.add(scope)
                if self._stopping:
                    scope.cancel()
                try:
                    await accept_all(listener, self.serve_stream, connections, "of ttrpc")
                finally:
                    self._accepting.remove(scope)
            await listener.aclose()

    async def shutdown(self, grace: float) -> None:
        """Accept no more connections and requests, let calls at work end for ``grace`` seconds, then cancel them.
        Returns when every connection is closed and every handler done: one that shields itself is waited for."""
        self._stopping = True
        for scope in self._accepting:
            scope.cancel()
        for session in self._sessions:
            session.stop()
        with anyio.move_on_after(grace):
            await self._closed()
        for session in self._sessions:
            session.abort()
        await self._closed()

    async def _closed(self) -> None:
        while self._sessions:
            await self._changed.wait()
