"""The second witness of workers' ends, beside their fork server, which may be stopped or busy then.

The kernel keeps no time of death: neither a zombie nor PIDFD_GET_INFO has one (Linux 6.18), and what tells of one
(taskstats, the proc connector, perf events) tells a listener of every exit of the node, or costs each process a buffer
and work at each switch. So the time is when a process that waited was awake; of two, the earlier.
"""

import select
import socket
import time
from contextlib import suppress
from typing import Protocol

import anyio


class Mortal(Protocol):
    """What is watched."""

    died_at: int


class Witness:
    """Waits for a socket, and meanwhile notes when processes end.

    :param sock: it stays the caller's
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._watched: dict[int, Mortal] = {}
        self._poll: select.epoll | None = None
        """``None``: there was no descriptor for it, and nothing is noted."""
        try:
            self._poll = select.epoll()
            self._poll.register(sock, select.EPOLLIN)
        except OSError:
            self.close()

    def watch(self, pidfd: int, process: Mortal) -> None:
        """Until :meth:`forget`, which is to be called before the descriptor is closed: its file is others', too."""
        if self._poll is not None:
            with suppress(OSError):  # no memory, or too many watches: its fork server is a witness
                self._poll.register(pidfd, select.EPOLLIN)
                self._watched[pidfd] = process

    def forget(self, pidfd: int) -> None:
        if self._watched.pop(pidfd, None) is not None and self._poll is not None:
            self._poll.unregister(pidfd)

    async def readable(self) -> None:
        """Wait until the socket can be read."""
        while True:
            await anyio.wait_readable(self._sock if self._poll is None else self._poll)
            if self._poll is None or self._look(self._poll):
                return

    def _look(self, poll: select.epoll) -> bool:
        """Returns whether the socket can be read."""
        now, readable = time.time_ns(), False
        for fd, _events in poll.poll(0):
            if (process := self._watched.get(fd)) is not None:
                process.died_at = now
                self.forget(fd)
            else:
                readable = True
        return readable

    def close(self) -> None:
        """Nothing is watched any more."""
        self._watched.clear()
        if self._poll is not None:
            self._poll.close()
            self._poll = None
