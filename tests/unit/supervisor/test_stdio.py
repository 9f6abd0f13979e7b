"""Standard streams on real FIFOs, files, logging programs and terminals."""

import errno
import os
import stat
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from shimd.errors import FailedPrecondition, InvalidArgument, ShimdError
from shimd.supervisor.recovery.keeping import NotKept
from shimd.supervisor.task import logger as logger_module
from shimd.supervisor.task import stdio as stdio_module
from shimd.supervisor.task.stdio import Kept, Stdio, Streams
from tests.unit.short import no_descriptors

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def tasks() -> AsyncIterator[anyio.abc.TaskGroup]:
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()


def fifo(directory: Path, name: str) -> str:
    path = directory / name
    os.mkfifo(path)
    return str(path)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For FIFOs that nobody reads yet."""
    monkeypatch.setattr(stdio_module, "_PATIENCE", 0.01)


class Keeper(NotKept):
    """Of :class:`shimd.supervisor.task.context.Context`."""


async def open_stdio(streams: Streams, size: tuple[int, int] = (0, 0)) -> Stdio:
    return await Stdio.open(streams, "c1", "ns1", size, Kept(Keeper(), "task:"))


async def test_nothing_named_is_dev_null() -> None:
    stdio = await open_stdio(Streams())
    null = os.stat(os.devnull).st_rdev
    assert [os.fstat(fd).st_rdev for fd in stdio.fds] == [null] * 3
    await stdio.close()


@pytest.mark.usefixtures("impatient")
async def test_fifos_open_without_any_peer(tmp_path: Path) -> None:
    stdio = await open_stdio(Streams(fifo(tmp_path, "in"), fifo(tmp_path, "out"), fifo(tmp_path, "err")))
    assert all(os.get_blocking(fd) for fd in stdio.fds)
    assert os.write(stdio.fds[1], b"early") == 5, "written with no reader there yet"
    reader = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 10) == b"early"
    os.close(reader)
    assert os.write(stdio.fds[1], b"late") == 4, "written after the reader left"
    await stdio.close()


async def test_a_reader_may_come_later_than_a_fast_app_would_end(tmp_path: Path, tasks: anyio.abc.TaskGroup) -> None:
    """containerd's comes from a thread of its own: it reads all there is, and its end."""
    streams = Streams(stdout=fifo(tmp_path, "out"), stderr=fifo(tmp_path, "err"))
    read = {}

    def reader(name: str) -> None:
        time.sleep(0.1)
        read[name] = (tmp_path / name).read_bytes()

    readers = [threading.Thread(target=reader, args=[name], daemon=True) for name in ("out", "err")]
    for thread in readers:
        thread.start()
    stdio = await open_stdio(streams)
    os.write(stdio.fds[1], b"output")
    os.write(stdio.fds[2], b"errors")
    stdio.start(tasks)
    stdio.handed_over()
    await stdio.close()
    for thread in readers:
        thread.join(5)
    assert read == {"out": b"output", "err": b"errors"}


async def test_stdin_ends_when_closed_not_before(tmp_path: Path) -> None:
    stdio = await open_stdio(Streams(stdin=fifo(tmp_path, "in")))
    reader = os.dup(stdio.fds[0])
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)  # no writer of containerd's, and yet no end
    writer = os.open(tmp_path / "in", os.O_WRONLY | os.O_NONBLOCK)
    os.write(writer, b"data")
    os.close(writer)
    assert os.read(reader, 10) == b"data"
    stdio.handed_over()
    stdio.close_stdin()
    stdio.close_stdin()
    assert os.read(reader, 10) == b""
    os.close(reader)
    await stdio.close()


async def test_file_logs_append_and_make_directories(tmp_path: Path) -> None:
    log = tmp_path / "a" / "b.log"
    for text in (b"one ", b"two"):
        stdio = await open_stdio(Streams(stdout=f"file://{log}", stderr=f"file://{log}"))
        os.write(stdio.fds[1], text)
        await stdio.close()
    assert log.read_bytes() == b"one two"


@pytest.mark.parametrize(
    ("streams", "reason"),
    [
        (Streams(stdout="/nowhere/out"), r"stdout /nowhere/out: no such file"),
        (Streams(stdin="/nowhere/in"), r"stdin /nowhere/in: no such file"),
        (Streams(stderr="gopher://x/y"), "gopher://"),
        (Streams(stdout="binary:///no/such/program"), "log program /no/such/program: no such file"),
        (Streams(stdout="binary:///bin/false"), "ended before it was ready"),
        (Streams(stdout="/nowhere/out", terminal=True), "stdout /nowhere/out"),
    ],
)
async def test_what_cannot_be_opened_is_named(streams: Streams, reason: str) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(InvalidArgument, match=reason):
        await open_stdio(streams)
    assert set(os.listdir("/proc/self/fd")) == before, "descriptors leaked"


LOGGER = """\
#!{python} -I
import os, sys
out = open(sys.argv[1], "w")
print(sys.argv[2:], os.environ["CONTAINER_ID"], os.environ["CONTAINER_NAMESPACE"], file=out, flush=True)
os.close(5)
print(os.fdopen(3).read(), os.fdopen(4).read(), file=out, flush=True)
"""


async def test_logging_program(tmp_path: Path, tasks: anyio.abc.TaskGroup) -> None:
    program, result = tmp_path / "logger", tmp_path / "result"
    program.write_text(LOGGER.format(python=sys.executable))
    program.chmod(0o755)
    stdio = await open_stdio(Streams(stdout=f"binary://{program}?{result}&key=value"))
    os.write(stdio.fds[1], b"to stdout")
    os.write(stdio.fds[2], b"to stderr")
    stdio.start(tasks)
    stdio.handed_over()  # nobody else holds the write ends: the program reads their end
    await stdio.close()
    assert result.read_text() == "['key', 'value'] c1 ns1\nto stdout to stderr\n"


@pytest.mark.usefixtures("impatient")
async def test_terminal(tmp_path: Path, tasks: anyio.abc.TaskGroup) -> None:
    streams = Streams(fifo(tmp_path, "in"), fifo(tmp_path, "out"), terminal=True)
    stdio = await open_stdio(streams, size=(24, 80))
    assert all(os.isatty(fd) for fd in stdio.fds)
    assert os.get_terminal_size(stdio.fds[0]) == (80, 24)
    slave = os.dup(stdio.fds[0])
    stdio.start(tasks)
    stdio.handed_over()
    stdio.resize(50, 132)
    assert os.get_terminal_size(slave) == (132, 50)
    reader = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
    os.write(slave, b"hello")
    await anyio.wait_readable(reader)
    assert os.read(reader, 100) == b"hello"
    writer = os.open(tmp_path / "in", os.O_WRONLY)
    os.write(writer, b"typed\n")
    assert await anyio.to_thread.run_sync(os.read, slave, 100) == b"typed\n"
    for fd in (slave, reader, writer):
        os.close(fd)
    await stdio.close()


@pytest.mark.usefixtures("impatient")
async def test_what_was_written_last_is_not_lost(tmp_path: Path, tasks: anyio.abc.TaskGroup) -> None:
    stdio = await open_stdio(Streams(stdout=fifo(tmp_path, "out"), terminal=True))
    slave = os.dup(stdio.fds[1])
    stdio.start(tasks)
    stdio.handed_over()
    reader = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
    os.write(slave, b"x" * 3000)
    os.close(slave)
    await stdio.close()
    assert os.read(reader, 10000) == b"x" * 3000
    os.close(reader)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["fifo", "file"])
async def test_a_terminal_waits_for_what_is_short(
    tmp_path: Path, tasks: anyio.abc.TaskGroup, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Memory, or room on the disk: its output goes on when there is some again."""
    monkeypatch.setattr(stdio_module, "_PAUSE", 0.001)
    errors = [errno.ENOMEM, errno.ENOSPC, errno.ENOBUFS]
    real = {name: getattr(os, name) for name in ("splice", "write", "read")}

    def short(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if errors and arguments[0] not in theirs:
                raise OSError(number := errors.pop(), os.strerror(number))
            return real[name](*arguments, **more)

        return call

    out = fifo(tmp_path, "out") if kind == "fifo" else f"file://{tmp_path}/out"
    stdio = await open_stdio(Streams(stdout=out, terminal=True))
    slave = os.dup(stdio.fds[1])
    theirs = {slave}
    for name in real:
        monkeypatch.setattr(os, name, short(name))
    stdio.start(tasks)
    stdio.handed_over()
    reader = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
    theirs.add(reader)
    os.write(slave, b"all of it")
    with anyio.fail_after(20):
        while errors:  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(0.001)
    os.close(slave)
    await stdio.close()
    assert os.read(reader, 100) == b"all of it"
    os.close(reader)


@pytest.mark.usefixtures("impatient")
async def test_no_copying_goes_on_after_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader takes nothing, and somebody keeps the terminal: a task that still waited for closed descriptors would
    get in the way of whoever has their numbers next."""
    monkeypatch.setattr(stdio_module, "_DRAINING", 0.01)
    for size in (1, 1 << 20):
        stdio = await open_stdio(Streams(stdout=fifo(tmp_path, f"out{size}"), terminal=True))
        slave = os.dup(stdio.fds[1])
        os.set_blocking(slave, False)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as copying:
                stdio.start(copying)
                stdio.handed_over()
                for _ in range(size // 1024 + 1):
                    with suppress(BlockingIOError):
                        os.write(slave, b"x" * 1024)
                    await anyio.lowlevel.checkpoint()
                await stdio.close()
        os.close(slave)


async def test_resize_without_a_terminal() -> None:
    stdio = await open_stdio(Streams())
    with pytest.raises(FailedPrecondition, match="no terminal"):
        stdio.resize(1, 1)
    await stdio.close()


async def test_stdin_may_be_a_regular_file(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"content")
    stdio = await open_stdio(Streams(stdin=str(path)))
    assert stat.S_ISREG(os.fstat(stdio.fds[0]).st_mode)
    assert os.read(stdio.fds[0], 100) == b"content"
    await stdio.close()


async def test_a_log_program_that_never_reads_ends_with_its_app(
    tmp_path: Path, tasks: anyio.abc.TaskGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipe is full, and the program sleeps: neither is anybody's reason to wait for ever."""
    monkeypatch.setattr(logger_module, "PATIENCE", 0.5)
    program = tmp_path / "logger"
    program.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\nexec 5>&-\nexec sleep 600\n")
    program.chmod(0o755)
    before = set(os.listdir("/proc/self/fd"))
    stdio = await open_stdio(Streams(stdout=f"binary://{program}"))
    os.set_blocking(stdio.fds[1], False)
    with suppress(BlockingIOError):
        while True:
            os.write(stdio.fds[1], bytes(4096))
    stdio.start(tasks)
    stdio.handed_over()
    with anyio.fail_after(30):
        await stdio.close()
    await stdio.close()  # as a Delete does that is repeated
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
    assert set(os.listdir("/proc/self/fd")) == before, "descriptors leaked"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("left", range(14))
@pytest.mark.parametrize("terminal", [False, True])
async def test_few_descriptors_leave_nothing_open(tmp_path: Path, left: int, terminal: bool) -> None:
    program = tmp_path / "logger"
    program.write_text("#!/bin/sh\nexec 5>&-\nexec sleep 600\n")
    program.chmod(0o755)
    cases = [Streams(fifo(tmp_path, "in"), fifo(tmp_path, "out"), terminal=terminal)]
    if not terminal:
        cases.append(Streams(stdout=f"binary://{program}"))
    readers = [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for path in tmp_path.iterdir() if path.is_fifo()]
    before = set(os.listdir("/proc/self/fd"))
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    others = children.read_text()
    for streams in cases:
        with no_descriptors(left), suppress(OSError, ShimdError):
            await (await open_stdio(streams)).close()
    assert set(os.listdir("/proc/self/fd")) == before, "descriptors leaked"
    assert children.read_text() == others
    for fd in readers:
        os.close(fd)
