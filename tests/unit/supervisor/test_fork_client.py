"""The supervisor's side of the fork server's protocol, over real sockets."""

import os
import signal
import socket
from pathlib import Path

import anyio
import pytest

from shimd.protocol.packets import send
from shimd.protocol.worker import Error
from shimd.supervisor.workers.fork_client import Birthplace, ForkClient, Worker
from shimd.supervisor.workers.private_fork_servers import private_fork_servers

pytestmark = pytest.mark.anyio


async def test_what_a_worker_said_before_its_exit_is_not_lost() -> None:
    """The exit is told by the fork server, the error by the worker: either may be read first."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with ours, server, other:
        worker = Worker("key", 1, 1, ours, ForkClient(server))
        send(theirs, Error(3, "not valid"))
        theirs.close()
        worker.gone(0, 1)
        packet = await worker.receive()
        assert packet is not None
        assert packet[0] == Error(3, "not valid")
        assert await worker.receive() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a pid namespace")
async def test_whoever_is_cancelled_learns_of_the_end_of_its_worker(tmp_path: Path) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    with anyio.CancelScope() as scope:
        async with private_fork_servers(tmp_path) as servers:
            forks = await servers.get("wasmtime")
            pending = await forks.spawn_early("key", (null, null, null), Birthplace("new"))
            worker = await pending.worker()
            try:
                scope.cancel()
                await anyio.sleep_forever()
            finally:
                await forks.end(worker)
            pytest.fail("not cancelled")
    os.close(null)
    assert worker.status == signal.SIGKILL
