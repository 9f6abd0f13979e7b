"""A fork server's children: its workers, and what those left behind."""

import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from shimd.linux.pidfd import start_time
from shimd.protocol.fork_server import Exited, Spawned


@dataclass(eq=False)
class Child:
    """One that is followed, until a supervisor has it forgotten."""

    key: str
    pid: int
    start: int
    control: socket.socket | None = None
    """A duplicate of the supervisor's end."""
    pidfd: int = -1
    status: int | None = None
    exited_at: int = 0
    unwanted: bool = False
    """Whether nobody is to be told of its end."""

    @classmethod
    def of(cls, key: str, pid: int, control: socket.socket) -> "Child":
        """A child of ours, that nobody has waited for.

        :raises OSError: there is no descriptor left to follow it by
        """
        pidfd = os.pidfd_open(pid)
        try:
            return cls(key, pid, start_time(pid), control, pidfd)
        except BaseException:
            os.close(pidfd)
            raise

    def fds(self) -> Sequence[int]:
        """What is sent with :meth:`spawned`; nothing, once it has ended."""
        return () if self.control is None else (self.control.fileno(), self.pidfd)

    def spawned(self) -> Spawned:
        return Spawned(self.key, self.pid, self.start)

    def exited(self) -> Exited:
        assert self.status is not None
        return Exited(self.key, self.pid, self.status, self.exited_at, self.start)

    def kill(self) -> None:
        with suppress(OSError):  # it has ended
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def give_up(self) -> None:
        """End it if it waits for a supervisor: one that runs does not listen any more."""
        if self.control is not None:
            with suppress(OSError):
                self.control.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """It is not followed any more."""
        if self.control is not None:
            self.control.close()
            self.control = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
