"""A fork server's connections to supervisors. None of them, whatever it does, keeps the fork server waiting."""

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from shimd.linux.peer import peer_uid
from shimd.protocol.codec import NotAMessage
from shimd.protocol.fork_server import Event, Request, decode_request
from shimd.protocol.packets import receive, send

#: The kernel has no room now, and may have some later (sendmsg(2), recvmsg(2), unix(7)).
_FOR_NOW = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})


class Full(Exception):
    """There is no room for the message now."""


def _none() -> Sequence[int]:
    return ()


class Connection:
    """One of them. What it is told waits here while the socket takes no more."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._unsent: deque[tuple[Event, Callable[[], Sequence[int]]]] = deque()

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def is_ours(self) -> bool:
        """Whether a process of our own user has connected."""
        return peer_uid(self._sock) == os.geteuid()

    @property
    def waits(self) -> bool:
        """Whether something is left to be sent."""
        return bool(self._unsent)

    def tell(self, message: Event, fds: Callable[[], Sequence[int]] = _none) -> None:
        """Send it, now or by a later :meth:`flush`.

        :param fds: asked for the descriptors when it is sent
        :raises OSError: the connection has ended
        """
        self._unsent.append((message, fds))
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes.

        :raises OSError: the connection has ended
        """
        while self._unsent:
            message, fds = self._unsent[0]
            try:
                send(self._sock, message, fds())
            except OSError as error:
                if error.errno in _FOR_NOW:
                    return
                raise
            self._unsent.popleft()

    def receive(self) -> tuple[Request, list[int]] | None:
        """The next request; ``None``: the connection has ended, or it is not one of our supervisors.

        :raises Full: there is none, or no room for it now
        :raises LostDescriptors: it has come without its descriptors
        """
        try:
            return receive(self._sock, decode_request)
        except NotAMessage:
            return None
        except OSError as error:
            if error.errno in _FOR_NOW:
                raise Full from error
            if error.errno == errno.EMFILE:
                raise
            return None

    def close(self) -> None:
        self._sock.close()
