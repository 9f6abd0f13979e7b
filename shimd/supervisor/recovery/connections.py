"""Connections that outlive the supervisor: the keeper has each from accept(2) to its end, with its log.

Nothing is read before there is a log, so that one that is kept without has lost nothing.
"""

import os
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
from anyio.abc import ByteStream, Listener, SocketAttribute, SocketStream, TaskGroup, UNIXSocketStream

from shimd.errors import is_shortage
from shimd.log import logger
from shimd.supervisor.background import Background
from shimd.supervisor.recovery.keeping import Keeping
from shimd.supervisor.recovery.memory_log import MemoryLog, Torn
from shimd.supervisor.recovery.request_log import RequestLog
from shimd.ttrpc import Server
from shimd.ttrpc.accept import accept_all

_log = logger(__name__)
_PREFIX = "connection:"
#: Seconds after a launcher's answer.
_COMES_WITHIN = 5.0
#: Seconds until memory that there was not is asked for again.
_PAUSE = 1.0


class Connections:
    """Those of one server.

    :param name: under which a successor finds the same server (:func:`server_of`)
    """

    def __init__(self, server: Server, keeper: Keeping, name: str) -> None:
        self._server, self._keeper, self._name = server, keeper, name
        self._open = 0
        self._announced: deque[float] = deque()

    def announce(self) -> None:
        """Somebody was told to connect."""
        self._awaited().append(time.monotonic())

    @property
    def busy(self) -> bool:
        """Whether any is open, or was announced some seconds ago and has not come yet."""
        return self._open > 0 or bool(self._awaited())

    def _awaited(self) -> deque[float]:
        while self._announced and self._announced[0] < time.monotonic() - _COMES_WITHIN:
            self._announced.popleft()
        return self._announced

    async def serve(self, listener: Listener[SocketStream], tasks: Background) -> None:
        """Serve all that the listener accepts, until cancelled; whatever accept(2) says.

        :param tasks: what the connections live in: they outlive the listener
        """
        sock = listener.extra(SocketAttribute.raw_socket)
        await accept_all(_AtOnce(sock, self._keep, tasks), self._accepted, None, f"of {self._name}")

    async def resume(self, name: str, fds: list[int]) -> None:
        """Serve a connection that an earlier supervisor had, to its end: what was not answered comes first.

        What is wrong with it costs this connection, and a line of the log.

        :param name: under which it is kept
        :param fds: of it; they are ours from now on
        """
        self._open += 1
        try:
            await self._resume(name, fds)
        finally:
            self._open -= 1

    async def _resume(self, name: str, fds: list[int]) -> None:
        opened: list[int] = list(fds)
        try:
            stream, log = await self._reopen(name, opened)
        except Exception as error:
            _log.error("a connection of %s cannot be served, and is closed: %s", self._name, error)
            self._keeper.drop(name)
            for fd in opened:
                os.close(fd)
            return
        await self._serve(stream, log, name)

    async def _reopen(self, name: str, opened: list[int]) -> tuple[UNIXSocketStream, RequestLog | None]:
        """
        :param opened: the descriptors; those that have an owner are taken off
        """
        if len(opened) not in (1, 2):
            raise Torn(f"it has {len(opened)} descriptors")
        log = self._new_log(name, opened[0]) if len(opened) == 1 else await self._earlier_log(name, opened)
        try:
            sock = socket.socket(fileno=opened[0])
            opened.pop()
            try:
                return await UNIXSocketStream.from_socket(sock), log
            except BaseException:
                sock.close()
                raise
        except BaseException:
            if log is not None:
                log.close()
            raise

    def _new_log(self, name: str, connection: int) -> RequestLog | None:
        """Of a connection that was accepted, by whomever, and has none yet."""
        try:
            log = RequestLog(MemoryLog.create("shimd-requests"), lambda: self._keeper.drop(name))
        except OSError as error:
            _log.error("a connection of %s will not outlive us, since it can have no log: %s", self._name, error)
            self._keeper.drop(name)
            return None
        self._keeper.keep(name, [connection, log.fd])
        return log

    async def _earlier_log(self, name: str, opened: list[int]) -> RequestLog:
        """Its requests are not answered before there is memory to read it."""
        while True:
            try:
                memory = MemoryLog.open(opened[1])
                break
            except OSError as error:
                if not is_shortage(error):
                    raise
                _log.error("a connection of %s cannot be taken over for now: %s", self._name, error)
                await anyio.sleep(_PAUSE)
        opened.pop()
        try:
            return RequestLog(memory, lambda: self._keeper.drop(name))
        except BaseException:
            memory.close()
            raise

    def _keep(self, sock: socket.socket) -> str:
        if self._announced:
            self._announced.popleft()
        name = f"{_PREFIX}{self._name}:{os.urandom(8).hex()}"
        self._keeper.keep(name, [sock.fileno()])
        return name

    async def _accepted(self, accepted: tuple[socket.socket, str]) -> None:
        sock, name = accepted
        await self.resume(name, [sock.detach()])

    async def _serve(self, stream: ByteStream, log: RequestLog | None, name: str) -> None:
        """To the end of the connection, which is when the keeper drops it; or to ours."""
        try:
            await self._server.run(self._server.open(stream, log=log))
        except Exception:
            _log.exception("a connection of %s failed", self._name)
            self._keeper.drop(name)
        finally:
            if log is not None:
                log.close()


class _AtOnce(Listener[tuple[socket.socket, str]]):
    """Accepts, and has each connection kept before the event loop turns: what dies in between loses it.

    :param keep: returns the name under which it is kept
    :param tasks: where its handler runs
    """

    def __init__(self, sock: socket.socket, keep: Callable[[socket.socket], str], tasks: Background) -> None:
        self._sock, self._keep, self._tasks = sock, keep, tasks

    async def serve(
        self, handler: Callable[[tuple[socket.socket, str]], Any], task_group: TaskGroup | None = None
    ) -> None:
        while True:
            await anyio.wait_readable(self._sock)
            try:
                accepted, _address = self._sock.accept()
            except BlockingIOError:
                continue
            accepted.setblocking(False)
            self._tasks.start_soon(handler, (accepted, self._keep(accepted)))

    async def aclose(self) -> None:
        self._sock.close()


def server_of(name: str) -> str | None:
    """Whose connection is kept under a name; ``None``: it is none."""
    return name.removeprefix(_PREFIX).rpartition(":")[0] if name.startswith(_PREFIX) else None
