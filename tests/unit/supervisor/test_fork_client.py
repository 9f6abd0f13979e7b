"""The supervisor's side of the fork server's protocol, over real sockets."""

import os
import signal
import socket
from pathlib import Path

import anyio
import pytest

from shimd.errors import Unavailable
from shimd.protocol.constants import VERSION
from shimd.protocol.fork_server import End, Hello, Spawned, decode_request
from shimd.protocol.packets import receive, send
from shimd.protocol.worker import Error, Start, decode_order
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


@pytest.mark.parametrize("told", [False, True])
async def test_one_whose_fork_server_is_late_is_started_after_all(told: bool) -> None:
    """It was taken for one that runs, since nothing could be said to it."""
    server, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    its.setblocking(False)
    with server, other, its:
        orphan = Worker("key", 1, 1, None, ForkClient(None), orphan=True)
        client = ForkClient(server, {"key": orphan})
        if told:
            with pytest.raises(Unavailable):
                orphan.send(Start())
        client._spawned(Spawned("key", 1, 1), [control.detach()])
        if told:
            packet = receive(its, decode_order)
            assert packet is not None
            assert packet[0] == Start()
        else:
            orphan.send(Start())
            assert receive(its, decode_order) is not None
        assert orphan.control is None


async def test_one_that_runs_takes_no_descriptor_to_talk_by() -> None:
    """A successor would need more than there were before."""
    server, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with server, other, its:
        client = ForkClient(server, running={"key"})
        client._spawned(Spawned("key", 1, 1), [control.detach()])
        assert client.workers["key"].control is None
        assert its.recv(1) == b""


async def test_one_that_has_ended_is_forgotten_when_nobody_wants_it() -> None:
    """Its fork server would wait for who asks for its exit."""
    server, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.setblocking(False)
    with server, other:
        worker = Worker("key", 1, 1, None, ForkClient(server))
        worker.gone(0, 1)
        worker.abandon()
        assert [receive(other, decode_request) for _ in range(2)] == [(Hello(VERSION), []), (End("key"), [])]


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
