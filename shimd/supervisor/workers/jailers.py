"""The supervisor's side of the jailers: as many as there is work for, and another for each that hangs."""

import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, TypeVarTuple

import anyio

from shimd.errors import Unavailable, from_code, reason
from shimd.linux.spawn import spawn
from shimd.protocol.constants import LISTEN_FD
from shimd.protocol.jailer import Finish, Finished, Made, Make, decode_reply
from shimd.protocol.packets import message_file, receive, send
from shimd.protocol.plans import JailPlan
from shimd.protocol.worker import Error
from shimd.supervisor import children
from shimd.supervisor.workers.fork_client import environment

#: At work at a time; more would only wait for processors.
_MOST = max(2, os.cpu_count() or 1)
#: Seconds after which one counts as hanging, on a volume that does not answer: others go on without it.
_HANGS = 5.0
#: Seconds after which it is killed, and whoever waits is told.
_LIMIT = 60.0


Args = TypeVarTuple("Args")


class Tasks(Protocol):
    """Tasks that live as long as the daemon. One of anyio's task groups will do."""

    def start_soon(self, function: Callable[[*Args], Coroutine[Any, Any, None]], /, *args: *Args) -> object: ...


During = Callable[[], Awaitable[None]]
"""A thing to be done while a jail is being made."""


async def nothing() -> None:
    pass


@dataclass
class Jail:
    """A jail, as descriptors: closed, and with them gone, at the end of the context."""

    calls: int
    fds: Sequence[int]
    program: int | None
    path: str
    missing: str
    """Why there is no program."""
    digest: str
    """The program's SHA-256, hexadecimal, if it is a small one."""
    listening: Sequence[int]
    """The worker's descriptors of its listening sockets."""
    held: "Held | None" = None
    """Who waits with it, if there are hooks to be run."""

    async def finish(self) -> None:
        """Its hooks have been run, if it has any.

        :raises ShimdError: one sentence
        """
        held, self.held = self.held, None
        if held is not None:
            await held.go_on()

    def __enter__(self) -> "Jail":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for fd in (self.calls, *self.fds, *([] if self.program is None else [self.program])):
            os.close(fd)
        if self.held is not None:
            self.held.end()


@dataclass(eq=False)
class _Jailer:
    pid: int
    sock: socket.socket
    since: float = 0.0
    """When its work began (seconds, monotonic)."""


class Held:
    """A jailer that waits in the jail that it has made, before the root file system is all that is to be seen."""

    def __init__(self, jailers: "Jailers", jailer: _Jailer) -> None:
        self._jailers, self._jailer = jailers, jailer

    async def go_on(self) -> None:
        """Let it finish, and come back.

        :raises ShimdError: one sentence
        """
        try:
            send(self._jailer.sock, Finish())
        except OSError:
            self.end()
            raise Unavailable("the jailer died: ask once more") from None
        await self._jailers.answer(self._jailer)

    def end(self) -> None:
        """The jail is not wanted any more."""
        self._jailers.end(self._jailer)


class Jailers:
    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._idle: list[_Jailer] = []
        self._busy: set[_Jailer] = set()
        self._freed = anyio.Event()

    @property
    def pids(self) -> list[int]:
        """The pids of the jailers that run."""
        return [one.pid for one in (*self._idle, *self._busy)]

    async def make(self, plan: JailPlan, terminal: int | None = None, during: During = nothing) -> Jail:
        """Make or find the jail of a plan.

        :param terminal: the slave end of the process's pty
        :param during: called while it is being made
        :raises ShimdError: one sentence; or what ``during`` raises
        """
        while True:
            jailer = await self._take()
            try:
                if _ask_for(jailer, plan, terminal):
                    break
            except BaseException:  # it has not been asked: no descriptor for the plan, say
                self._free(jailer)
                raise
            self.end(jailer)  # it was killed when it was idle
        try:
            await during()
        except BaseException:  # nobody knows where it is now
            self.end(jailer)
            raise
        made, fds = await self.answer(jailer)
        assert isinstance(made, Made)
        program = fds.pop() if made.program else None
        held = Held(self, jailer) if made.held else None
        return Jail(fds[0], fds[1:], program, made.path, made.missing, made.digest, made.listening, held)

    async def answer(self, jailer: _Jailer) -> tuple[Made | Finished, list[int]]:
        """The jailer's reply; then it is free for others, unless it waits.

        :raises ShimdError: one sentence
        """
        try:
            with anyio.fail_after(_LIMIT):
                reply, fds = await _answer(jailer)
        except TimeoutError:
            self.end(jailer)
            raise Unavailable(f"the jailer has not answered within {_LIMIT:g} s: does a volume hang?") from None
        except BaseException:
            self.end(jailer)
            raise
        if isinstance(reply, Made) and reply.held:
            jailer.since = 0.0  # it does nothing, for as long as hooks take: others go on without it
            self._tell_of_room()
        else:
            self._free(jailer)
        if isinstance(reply, Error):
            raise from_code(reply.code, reply.message)
        return reply, fds

    def close(self) -> None:
        """Let them all go; they end by themselves."""
        for jailer in (*self._idle, *self._busy):
            jailer.sock.close()

    async def _take(self) -> _Jailer:
        while not self._idle and self._at_work() >= _MOST:
            with anyio.move_on_after(_HANGS / 5):
                await self._freed.wait()
        jailer = self._idle.pop() if self._idle else _start()
        jailer.since = time.monotonic()
        self._busy.add(jailer)
        return jailer

    def _at_work(self) -> int:
        now = time.monotonic()
        return sum(now - one.since < _HANGS for one in self._busy)

    def _free(self, jailer: _Jailer) -> None:
        self._busy.discard(jailer)
        self._idle.append(jailer)
        self._tell_of_room()

    def _tell_of_room(self) -> None:
        self._freed.set()
        self._freed = anyio.Event()

    def end(self, jailer: _Jailer) -> None:
        """Kill one."""
        self._busy.discard(jailer)
        jailer.sock.close()
        with suppress(ProcessLookupError):
            os.kill(jailer.pid, signal.SIGKILL)
        self._tasks.start_soon(_reap, jailer.pid)


def _ask_for(jailer: _Jailer, plan: JailPlan, terminal: int | None) -> bool:
    """Returns whether it takes the request."""
    fd = message_file("shimd-plan", plan)
    try:
        send(jailer.sock, Make(terminal is not None), [fd, *([] if terminal is None else [terminal])])
    except ConnectionError:
        return False
    finally:
        os.close(fd)
    return True


async def _answer(jailer: _Jailer) -> tuple[Made | Finished | Error, list[int]]:
    await anyio.wait_readable(jailer.sock)
    try:
        packet = receive(jailer.sock, decode_reply)
    except ConnectionResetError:
        packet = None
    if packet is None:
        raise Unavailable("the jailer died: ask once more")
    return packet


def _start() -> _Jailer:
    """:raises Unavailable: it cannot be started"""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with theirs:
        try:
            fds = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), LISTEN_FD),
            ]
            words = [sys.executable, "-I", "-m", "shimd.jailer.main"]
            pid = spawn(sys.executable, words, environment(), fds, session=True)
        except OSError as error:
            ours.close()
            raise Unavailable(f"the jailer does not start: {reason(error)}") from error
    ours.setblocking(False)
    return _Jailer(pid, ours)


async def _reap(pid: int) -> None:
    """It may take its time, if a file system holds it."""
    await children.ended(pid)
