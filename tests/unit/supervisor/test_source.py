"""Programs are hashed within a limit, and where nothing else waits for it."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from shimd.errors import ResourceExhausted, Unavailable
from shimd.formats.digest import add_part
from shimd.supervisor.modules import source as module
from shimd.supervisor.modules.source import sha256, source
from tests.unit.supervisor.hung import hung_file

pytestmark = pytest.mark.anyio


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "program", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("size", [0, 1 << 20, (16 << 20) - 1, 16 << 20, (16 << 20) + 5])
async def test_a_whole_file(file: int, size: int) -> None:
    data = os.urandom(size)
    os.pwrite(file, data, 0)
    os.lseek(file, 3, os.SEEK_SET)
    assert await source("app.wasm", file) == (file, hashlib.sha256(data).hexdigest())


async def test_one_that_is_too_large_is_refused_at_once(file: int) -> None:
    os.ftruncate(file, 1 << 40)
    with (
        anyio.fail_after(20),
        pytest.raises(ResourceExhausted, match=r"^/app\.wasm has 1099511627776 bytes, and SHIMD_"),
    ):
        await source("/app.wasm", file)


async def test_the_limit_can_be_set(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    os.ftruncate(file, 2000)
    monkeypatch.setenv("SHIMD_PROGRAM_SIZE", "1999")
    with pytest.raises(ResourceExhausted, match="SHIMD_PROGRAM_SIZE allows 1999"):
        await source("/app.wasm", file)
    monkeypatch.setenv("SHIMD_PROGRAM_SIZE", "2000")
    await source("/app.wasm", file)


async def test_many_that_take_for_ever_hold_nobody_up(file: int) -> None:
    """Neither what needs a thread for something else, nor the end."""
    os.ftruncate(file, 1 << 42)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(60):
                tasks.start_soon(sha256, file)
            await until_all_wait()
            assert await to_thread.run_sync(lambda: "a thread") == "a thread"
            tasks.cancel_scope.cancel()


async def test_reads_that_hang_hold_nobody_up(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a volume whose server is gone, from which no signal wakes: their callers may leave, and others go on."""
    answers, read = threading.Event(), add_part

    def hang(digest: Any, fd: int, offset: int, size: int) -> None:
        answers.wait()
        read(digest, fd, offset, size)

    os.ftruncate(file, 2 << 20)
    monkeypatch.setattr(module, "add_part", hang)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(sha256, file)
            await until_all_wait()
            tasks.cancel_scope.cancel()
        monkeypatch.setattr(module, "add_part", read)
        assert len(await sha256(file)) == 64
    answers.set()


async def until_all_wait() -> None:
    while module._AT_ONCE.available_tokens:  # noqa: ASYNC110 — no event tells of it
        await anyio.sleep(0.01)


@pytest.fixture(params=[5, 2 << 20], ids=["small", "large"])
def hung(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A program on a volume whose server is gone."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("FUSE's mounts need root, and a kernel with it")
    (tmp_path / "hung").mkdir()
    with hung_file(tmp_path / "hung", request.param) as path:
        yield path


async def test_a_volume_that_hangs_holds_nobody_up(hung: Path, file: int) -> None:
    """Neither the event loop, nor other programs once the callers have left."""
    os.ftruncate(file, 2 << 20)
    fd = os.open(hung, os.O_RDONLY)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as callers:
            for _ in range(3):
                callers.start_soon(source, "/app.wasm", fd)
            await anyio.sleep(0.05)
            callers.cancel_scope.cancel()
        assert len(await sha256(file)) == 64
    assert module._AT_ONCE.available_tokens == 2
    os.close(fd)


async def test_a_volume_that_hangs_and_a_caller_who_waits(hung: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_TURN", 0.05)
    fd = os.open(hung, os.O_RDONLY)
    with pytest.raises(Unavailable, match=r"^/app\.wasm: its file system does not answer"):
        await source("/app.wasm", fd)
    os.close(fd)


ENDS = """
import os, sys, anyio
from shimd.supervisor.modules.source import source

async def main():
    with anyio.move_on_after(0.1):
        await source("/app.wasm", os.open(sys.argv[1], os.O_RDONLY))
    print("the end")

anyio.run(main)
"""


def test_a_volume_that_hangs_does_not_keep_the_daemon_from_ending(hung: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ENDS, hung], stdout=subprocess.PIPE, timeout=30, check=True)
    assert done.stdout == b"the end\n"


async def test_a_file_system_that_does_not_answer(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    os.ftruncate(file, 2 << 20)
    monkeypatch.setattr(module, "add_part", lambda *_arguments: answers.wait())
    monkeypatch.setattr(module, "_LONGEST_TURN", 0.05)
    with pytest.raises(Unavailable, match=r"/app\.wasm: its file system does not answer"):
        await source("/app.wasm", file)
    answers.set()
