"""``shimd run`` as signals come at a bad moment; ``tests/e2e/test_cli_run.py`` has the rest."""

import os
import signal
import socket

import anyio
import pytest

from shimd.cli.run import Run, RunOptions
from shimd.supervisor.workers.fork_client import ForkClient, Worker

pytestmark = pytest.mark.anyio
OPTIONS = RunOptions("wasmtime", (), (), "/", False, "", "app.wasm", ())


async def test_a_signal_to_an_app_that_has_just_ended() -> None:
    """The fork server has waited for it, and has not told us yet."""
    async with await anyio.open_process(["true"]) as ended:
        await ended.wait()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        run = Run(OPTIONS)
        run._worker = Worker("run", ended.pid, 0, ours, ForkClient(theirs))
        async with anyio.create_task_group() as tasks:
            await tasks.start(run._forward_signals)
            for number in (signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)
                await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()
