"""Fork servers of one's own, for as long as ``shimd run`` lasts."""

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc

from shimd.errors import ShimdError, Unavailable, reason
from shimd.supervisor.workers.fork_client import ForkClient, launch

#: Seconds for those that were killed to be gone, and between two looks.
_DYING, _MOMENT = 5.0, 0.002


class PrivateForkServers:
    """One of each engine that is asked for; they end with this process, too."""

    def __init__(self, directory: Path, tasks: anyio.abc.TaskGroup) -> None:
        """:param directory: for their sockets"""
        self._directory, self._tasks = directory, tasks
        self._clients: dict[str, ForkClient] = {}
        self._pids: list[int] = []

    async def get(self, engine: str) -> ForkClient:
        """The engine's.

        :raises Unavailable: it does not start
        """
        if engine not in self._clients:
            try:
                sock, pid = launch(engine, self._directory / f"{engine}.sock", "private")
            except OSError as error:
                raise Unavailable(f"the fork server of {engine} does not start: {reason(error)}") from error
            self._pids.append(pid)
            client = self._clients[engine] = ForkClient(sock)
            self._tasks.start_soon(self._read, client)
        return self._clients[engine]

    async def _read(self, client: ForkClient) -> None:
        # Whoever is cancelled ends its workers, and has to learn of their ends. It ends with end().
        with anyio.CancelScope(shield=True):
            await client.run()
            for worker in client.living:  # they end with it (system_calls.of_host)
                worker.gone(signal.SIGKILL, time.time_ns())

    def end(self) -> None:
        """Kill them; their readers end with them."""
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + _DYING
        for pid in self._pids:
            while not os.waitpid(pid, os.WNOHANG)[0] and time.monotonic() < until:
                time.sleep(_MOMENT)
        for client in self._clients.values():  # whose reader waits for the end of one that the kernel does not let die
            client.hang_up()


@asynccontextmanager
async def private_fork_servers(directory: Path) -> AsyncIterator[PrivateForkServers]:
    """Fork servers that end with the context.

    :param directory: for their sockets
    """
    error: ShimdError | None = None
    async with anyio.create_task_group() as tasks:
        servers = PrivateForkServers(directory, tasks)
        try:
            yield servers
        except ShimdError as caught:  # raised outside, since a task group would wrap it
            error = caught
        finally:
            servers.end()
    if error is not None:
        raise error
