"""The supervisor's side of the fork server's protocol, over real sockets."""

import os
import signal
import socket
from pathlib import Path

import anyio
import pytest

from shimd.protocol.messages import Plan, send
from shimd.supervisor.workers.fork_client import Forks, Worker, private_forks

pytestmark = pytest.mark.anyio


async def test_what_a_worker_said_before_its_exit_is_not_lost() -> None:
    """The exit is told by the fork server, the error by the worker: either may be read first."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with ours:
        worker = Worker("key", 1, 1, ours, Forks(theirs))
        send(theirs, {"ev": "error", "code": 3, "message": "not valid"})
        theirs.close()
        worker.gone(0, 1)
        packet = await worker.receive()
        assert packet is not None
        assert packet[0]["message"] == "not valid"
        assert await worker.receive() is None


async def test_whoever_is_cancelled_learns_of_the_end_of_its_worker(tmp_path: Path) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    with anyio.CancelScope() as scope:
        async with private_forks("wasmtime", tmp_path) as forks:
            coming = await forks.begin("key", Plan(kind="init", id="app", pidns="new"), (null, null, null))
            worker = await coming.worker()
            try:
                scope.cancel()
                await anyio.sleep_forever()
            finally:
                await forks.end(worker)
            pytest.fail("not cancelled")
    os.close(null)
    assert worker.status == signal.SIGKILL
