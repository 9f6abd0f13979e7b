"""The process of an app's providers: a child of its worker's, in the same container and with no other privileges.

It is made when the worker has nothing left to give up, and ends with it. It serves nobody itself: for the first
connection that is asked for it forks a process that does, and for the next another, if that one has ended.
"""

import ctypes
import os
import select
import signal
import socket
from typing import NoReturn

import anyio
import anyio._backends._asyncio  # it would be looked for where it is out of sight

from shimd.component.bridge.server import Provide, serve, tell
from shimd.engine import EngineError
from shimd.linux.passed import receive_with_descriptors

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Process:
    """One that is to be: until it is started, connections that are asked for wait."""

    def __init__(self) -> None:
        self._asked, asking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ask = asking.detach()
        """The descriptor that connections are asked for over, a packet with one's end each."""

    def start(self, provide: Provide) -> None:
        """Called once, in the worker's main thread: the process ends with that.

        :raises EngineError: there may be no further process
        """
        parent = os.getpid()
        try:
            child = os.fork()
        except OSError as error:
            raise EngineError(f"the process of the app's interfaces cannot be started: {error.strerror}") from None
        if child == 0:
            try:
                _end_with(parent)
                _close_all_but(self._asked.fileno())
                _keep(self._asked, provide)
            finally:
                os._exit(1)
        self._asked.close()


def _keep(asked: socket.socket, provide: Provide) -> NoReturn:
    """Have somebody serve, as long as anybody may ask."""
    parent = os.getpid()
    while _is_asked(asked):
        try:
            child = os.fork()
        except OSError as error:
            tell(f"the process of the app's interfaces cannot be started: {error.strerror}")
            _refuse(asked)
            continue
        if child == 0:
            try:
                _end_with(parent)
                anyio.run(serve, asked, provide)
            except BaseException as error:
                tell(f"the process of the app's interfaces fails: {type(error).__name__}: {error}")
                os._exit(1)
            os._exit(0)
        _pid, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            tell(f"the process of the app's interfaces was ended by {signal.Signals(os.WTERMSIG(status)).name}")
    os._exit(0)


def _is_asked(asked: socket.socket) -> bool:
    """Wait for a packet; returns whether there is one: else nobody can send any more."""
    poll = select.poll()
    poll.register(asked, select.POLLIN)
    poll.poll()
    return bool(asked.recv(1, socket.MSG_PEEK))


def _refuse(asked: socket.socket) -> None:
    """Close what was sent: its other end is told by that."""
    for descriptor in receive_with_descriptors(asked, 1, 1)[1]:
        os.close(descriptor)


def _end_with(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before
        os._exit(1)


def _close_all_but(kept: int) -> None:
    """Close what is the worker's, but for the streams."""
    os.closerange(3, kept)
    os.closerange(kept + 1, 1 << 30)
