"""The supervisor's side of the fork server's protocol, over real sockets."""

import socket

import pytest

from shimd.worker.client import Forks, Worker
from shimd.worker.messages import send

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
