"""A container whose worker fails at a bad moment; ``tests/e2e`` has the rest."""

import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from betterproto2 import Message

from shimd.errors import FailedPrecondition, Unavailable
from shimd.linux.pidfd import start_time
from shimd.protocol.journal import TaskRecord
from shimd.supervisor.task.container import Container
from shimd.supervisor.task.process import Process
from shimd.supervisor.task.state import Step
from shimd.supervisor.task.stdio import Kept, Stdio, Streams
from shimd.supervisor.workers.fork_client import ForkClient, Worker

pytestmark = pytest.mark.anyio
SPEC: Any = {"process": {"args": ["/app.wasm"], "cwd": "/", "env": []}, "root": {"path": "rootfs"}}


class Context:
    """Of :class:`shimd.supervisor.task.context.Context` what is used here."""

    engine, namespace, events_address, grpc_address = "wasmtime", "default", "", ""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.tasks = tasks
        self.published: list[Message] = []
        self.kept: set[str] = set()

    def keep(self, name: str, fds: Sequence[int]) -> None:
        self.kept.add(name)

    keep_soon = keep

    def commit(self, record: TaskRecord, event: Message | None = None, *, required: bool = False) -> None:
        if event is not None:
            self.published.append(event)

    def drop(self, name: str) -> None:
        self.kept.discard(name)


async def test_an_exec_whose_worker_ended_as_it_was_ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start fails, and whoever waits for it learns of its end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fork_server, _other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    worker = Worker("key", os.getpid(), 0, ours, ForkClient(fork_server))

    async def make(_self: Container, _process: Process) -> Worker:
        return worker

    @asynccontextmanager
    async def opened(_self: Container, _process: Process) -> AsyncIterator[None]:
        yield

    monkeypatch.setattr(Container, "_make_exec", make)
    monkeypatch.setattr(Container, "_opened", opened)
    with ours, fork_server, _other:
        async with anyio.create_task_group() as tasks:
            context: Any = Context(tasks)
            container = Container(context, "app", tmp_path, SPEC, Streams())
            for step in (Step.CREATE, Step.START):
                container.init.advance(step)
            await container.add_exec("exec", SPEC["process"], Streams())
            with pytest.raises(Unavailable):
                await container.start("exec")
            worker.gone(signal.SIGTERM, 1)
        assert container.execs["exec"].exited.is_set()


async def test_an_exec_that_is_made_while_its_init_ends_is_ended_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a pid namespace of others' it would go on by itself."""
    process = subprocess.Popen(["/bin/sleep", "600"])  # noqa: ASYNC220
    worker = Worker("exec", process.pid, start_time(process.pid), None, ForkClient(None))

    async def make(self: Container, _process: Process) -> Worker:
        assert self.init.worker is not None
        self.init.worker.gone(0, 1)
        return worker

    async def end(_self: ForkClient, ended: Worker) -> None:
        ended.signal(signal.SIGKILL)

    @asynccontextmanager
    async def opened(_self: Container, _process: Process) -> AsyncIterator[None]:
        yield

    monkeypatch.setattr(Container, "_make_exec", make)
    monkeypatch.setattr(Container, "_opened", opened)
    monkeypatch.setattr(ForkClient, "end", end)
    async with anyio.create_task_group() as tasks:
        context: Any = Context(tasks)
        container = Container(context, "app", tmp_path, SPEC, Streams())
        container.init.worker = Worker("init", os.getpid(), 0, None, ForkClient(None))
        for step in (Step.CREATE, Step.START):
            container.init.advance(step)
        await container.add_exec("exec", SPEC["process"], Streams())
        with pytest.raises(FailedPrecondition, match="container app is not running"):
            await container.start("exec")
    assert process.wait(30) == -signal.SIGKILL
    assert container.execs["exec"].worker is None


def terminal_of_one_that_ended(tasks: anyio.abc.TaskGroup, path: Path) -> tuple[Container, int, int]:
    """A container as an earlier supervisor has left it, the other side of its terminal, and what its reader has."""
    context: Any = Context(tasks)
    container = Container(context, "app", path, SPEC, Streams(terminal=True))
    init = container.init
    init.worker = Worker("init", os.getpid(), 0, None, ForkClient(None))
    init.worker.gone(0, 1)
    for step in (Step.CREATE, Step.START):
        init.advance(step)
    init.has_exited()
    master, slave = os.openpty()
    reader, writer = os.pipe2(os.O_NONBLOCK)
    os.set_blocking(master, False)
    context.kept.add("console:app")
    init.stdio = Stdio.resumed(Kept(context, "app"), {"console:app": [master, writer]}.get, ())
    return container, slave, reader


async def test_a_terminal_outlives_its_process_and_the_supervisor(tmp_path: Path) -> None:
    """Its reader is slow, or something else still has it."""
    async with anyio.create_task_group() as tasks:
        container, slave, reader = terminal_of_one_that_ended(tasks, tmp_path)
        container.go_on()
        os.write(slave, b"the last words")
        os.close(slave)
        words = b""
        with anyio.fail_after(10):
            while True:
                await anyio.wait_readable(reader)
                if not (data := os.read(reader, 100)):
                    break
                words += data
        assert words == b"the last words"
        assert not container.context.kept  # type: ignore[attr-defined]
    os.close(reader)


async def test_a_terminal_that_is_closed_is_kept_no_longer(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        container, slave, reader = terminal_of_one_that_ended(tasks, tmp_path)
        assert container.init.stdio is not None
        await container.init.stdio.close()
        assert not container.context.kept  # type: ignore[attr-defined]
    os.close(slave)
    assert os.read(reader, 1) == b""
    os.close(reader)
