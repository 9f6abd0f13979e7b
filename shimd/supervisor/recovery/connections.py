"""Connections that outlive the supervisor: the keeper has each with its log, from accept(2) to its end."""

import os
import socket

import anyio
from anyio.abc import ByteStream, Listener, SocketAttribute, SocketStream, UNIXSocketStream

from shimd.log import logger
from shimd.supervisor.recovery.keeping import Keeping
from shimd.supervisor.recovery.memory_log import MemoryLog, Torn
from shimd.supervisor.recovery.request_log import RequestLog
from shimd.ttrpc import Server
from shimd.ttrpc.accept import accept_all

_log = logger(__name__)
_PREFIX = "connection:"


class Connections:
    """Those of one server.

    :param name: under which a successor finds the same server (:func:`server_of`)
    """

    def __init__(self, server: Server, keeper: Keeping, name: str) -> None:
        self._server, self._keeper, self._name = server, keeper, name

    async def serve(self, listener: Listener[SocketStream]) -> None:
        """Serve all that the listener accepts, until cancelled; whatever accept(2) says."""
        async with anyio.create_task_group() as tasks:
            await accept_all(listener, self._accepted, tasks, f"of {self._name}")

    async def resume(self, name: str, fds: list[int]) -> None:
        """Serve a connection that an earlier supervisor had, to its end: what was not answered comes first.

        What is wrong with it costs this connection, and a line of the log.

        :param name: under which it is kept
        :param fds: of it; they are ours from now on
        """
        opened: list[int] = list(fds)
        try:
            stream, log = await self._reopen(name, opened)
        except Exception as error:
            _log.error("a connection of %s cannot be taken over, and is closed: %s", self._name, error)
            self._keeper.drop(name)
            for fd in opened:
                os.close(fd)
            return
        await self._serve(stream, log, name)

    async def _reopen(self, name: str, opened: list[int]) -> tuple[UNIXSocketStream, RequestLog]:
        """
        :param opened: the descriptors; those that have an owner are taken off
        """
        if len(opened) != 2:
            raise Torn(f"it has {len(opened)} descriptors")
        memory = MemoryLog.open(opened[1])
        opened.pop()
        try:
            log = RequestLog(memory, lambda: self._keeper.drop(name))
            sock = socket.socket(fileno=opened[0])
            opened.pop()
            try:
                return await UNIXSocketStream.from_socket(sock), log
            except BaseException:
                sock.close()
                raise
        except BaseException:
            memory.close()
            raise

    async def _accepted(self, stream: SocketStream) -> None:
        name = f"{_PREFIX}{self._name}:{os.urandom(8).hex()}"
        try:
            log = RequestLog(MemoryLog.create("shimd-requests"), lambda: self._keeper.drop(name))
        except OSError as error:
            _log.error("a connection of %s will not outlive us, since it can have no log: %s", self._name, error)
            await self._server.serve_stream(stream)
            return
        self._keeper.keep(name, [stream.extra(SocketAttribute.raw_socket).fileno(), log.fd])
        await self._serve(stream, log, name)

    async def _serve(self, stream: ByteStream, log: RequestLog, name: str) -> None:
        """To the end of the connection, which is when the keeper drops it; or to ours."""
        try:
            await self._server.run(self._server.open(stream, log=log))
        except Exception:
            _log.exception("a connection of %s failed", self._name)
            self._keeper.drop(name)
        finally:
            log.close()


def server_of(name: str) -> str | None:
    """Whose connection is kept under a name; ``None``: it is none."""
    return name.removeprefix(_PREFIX).rpartition(":")[0] if name.startswith(_PREFIX) else None
