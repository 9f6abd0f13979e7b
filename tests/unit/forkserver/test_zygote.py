"""The zygote by itself, as its fork server has it."""

import os
import resource
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shimd.engines.wasmtime import WasmtimeEngine
from shimd.forkserver import zygote as module
from shimd.forkserver.zygote import Zygote

Children = Callable[[], list[int]]


@pytest.fixture
def library(tmp_path: Path) -> list[str]:
    """The engine's part in C, at a place of its own."""
    command = WasmtimeEngine().library()
    assert command is not None
    return [str(shutil.copy(command[0], str(tmp_path / "part.so"))), *command[1:]]


@pytest.fixture
def children() -> Iterator[Children]:
    """Of the test's own; they have ended after it. (The whole suite has others.)"""
    before = _all()

    def own() -> list[int]:
        return sorted(_all() - before)

    yield own
    for pid in own():
        os.waitpid(pid, 0)


@pytest.fixture
def zygote(library: list[str], children: Children) -> Iterator[Zygote]:
    zygote = Zygote(library)
    yield zygote
    zygote.close()


def _all() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def spawn(zygote: Zygote) -> int:
    """A worker that ends at once, since nobody is at the other end of its control; its wait status."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, open(os.devnull) as null:
        pid = zygote.spawn([null.fileno()] * 3 + [theirs.fileno()], None, None)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.usefixtures("zygote")
def test_it_runs_from_memory_that_nobody_can_write_to(children: Children) -> None:
    (pid,) = children()
    assert "memfd:shimd-zygote" in os.readlink(f"/proc/{pid}/exe")
    with pytest.raises(OSError), open(f"/proc/{pid}/exe", "wb"):  # busy while it runs, else sealed
        pass
    assert Path(f"/proc/{pid}/comm").read_text() == "shimd-zygote\n"
    assert set(os.listdir(f"/proc/{pid}/fd")) == {"0", "1", "2", "3"}


def test_one_that_cannot_be_replaced_now_may_be_later(zygote: Zygote, library: list[str], children: Children) -> None:
    assert spawn(zygote) == 70
    (pid,) = children()
    hidden = Path(library[0]).rename(Path(library[0]).with_name("hidden.so"))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for _ in range(2):
        with pytest.raises(ChildProcessError):
            spawn(zygote)
    hidden.rename(library[0])
    assert spawn(zygote) == 70


def test_one_that_stands_still_is_replaced(zygote: Zygote, children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for its answer is told so; and it may be found out before anybody asks."""
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    (pid,) = children()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ChildProcessError, match="has not answered within"):
        spawn(zygote)
    os.waitpid(pid, 0)
    monkeypatch.undo()
    assert spawn(zygote) == 70
    (pid,) = children()
    os.kill(pid, signal.SIGSTOP)
    zygote.check()
    zygote.check()
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert spawn(zygote) == 70


def test_one_without_descriptors_is_replaced(zygote: Zygote, children: Children) -> None:
    (pid,) = children()
    _soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    for left in (0, 1, 3):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (4 + left, hard))
        with pytest.raises(ChildProcessError):
            spawn(zygote)
        os.waitpid(pid, 0)
        assert spawn(zygote) == 70
        (pid,) = children()


@pytest.mark.usefixtures("children")
def test_a_library_that_is_none_is_told(library: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    for wrong in ([library[0], "/nowhere/libwasmtime.so"], ["/nowhere/part.so"]):
        with pytest.raises(ChildProcessError):
            Zygote(wrong)
        assert wrong[0] in capfd.readouterr().err
