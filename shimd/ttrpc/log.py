"""A connection's log: with one, calls outlive the process that serves them.

A server that may be killed keeps all that a successor needs to serve the same socket: the requests that were not
answered, what was received of the next, and the responses that were not sent, or not whole. How it is kept is not the
affair of this package; see :meth:`shimd.ttrpc.server.Server.open`.
"""

import socket
from typing import Protocol


class Log(Protocol):
    """Every byte is in the socket or in the log, at every moment. One connection's, and one owner's at a time."""

    @property
    def replay(self) -> bytes:
        """What an earlier process received and did not answer."""
        ...

    @property
    def unsent(self) -> int:
        """Bytes of :meth:`answering` frames that the kernel has not taken yet, an earlier process's, too."""
        ...

    def receive(self, sock: socket.socket, size: int) -> bytes:
        """Take at most ``size`` bytes off the socket, without waiting, and keep them; none are the end of the stream.

        :raises BlockingIOError: nothing is there, or there is no room for it now
        :raises OSError: the connection broke
        """
        ...

    def answering(self, frame: bytes) -> None:
        """Keep a frame that is to be sent after those before. Its stream, if it ends that, is answered from now on."""
        ...

    def send(self, sock: socket.socket) -> int:
        """Send as much as the socket takes; how many bytes that was.

        :raises OSError: the connection broke (a socket that is full is no error)
        """
        ...

    def ended(self) -> None:
        """The connection is over, and is about to be closed: nothing is to be kept any more."""
        ...
