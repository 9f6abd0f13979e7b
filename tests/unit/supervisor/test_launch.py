"""How an app is started, by daemon and ``shimd run``: which fork server is asked, and what workers are answered."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from shimd.engines.wasmtime import NATIVE
from shimd.errors import DataLoss, Internal, InvalidArgument, NotFound
from shimd.linux.memory_file import memory_file
from shimd.oci import Process
from shimd.protocol.plans import ContainerApp
from shimd.protocol.worker import (
    Artifact,
    AskImage,
    AskProgram,
    Error,
    HandsOver,
    OtherEngine,
    Ready,
    Refusal,
    Warning,
)
from shimd.supervisor.workers.fork_client import Worker
from shimd.supervisor.workers.launch import Launch, ProgramFile
from tests.unit.supervisor.in_memory import Daemon, running

pytestmark = pytest.mark.anyio
APP = ContainerApp("app", Process(args=["/app.wasm"], cwd="/"), [], first=True)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    with anyio.fail_after(60):
        async with running(tmp_path) as daemon:
            daemon.engine = "wasmtime"
            yield daemon


async def launched(daemon: Daemon, file: ProgramFile | None = None, *, begin: bool = False) -> Worker:
    null = os.open(os.devnull, os.O_RDWR)
    try:
        async with aclosing(Launch(daemon, "default/app", "app", (null,) * 3)) as launch:
            if begin:
                await launch.begin(listens=False)
            return await launch.app(APP, [null], file)
    finally:
        os.close(null)


FOUND = ProgramFile("/app.wasm", 0)


async def test_a_program_of_its_own_engine(daemon: Daemon) -> None:
    worker = await launched(daemon, FOUND)
    assert daemon.asked_forks == ["wasmtime"]
    await worker.forks.end(worker)


async def test_what_the_compile_worker_noted_is_asked_at_once(daemon: Daemon) -> None:
    """No worker that only says that it is another engine's."""
    daemon.runner = "wasi-http"
    worker = await launched(daemon, FOUND)
    assert daemon.asked_forks == ["wasi-http"]
    assert len(daemon.fork_server.processes) == 1
    await worker.forks.end(worker)


async def test_a_worker_that_was_forked_early_is_ended_if_it_is_not_the_one(daemon: Daemon) -> None:
    daemon.runner = "wasi-http"
    worker = await launched(daemon, FOUND, begin=True)
    assert daemon.fork_server.living == [worker.pid]
    await worker.forks.end(worker)


async def test_an_engine_of_a_family_sees_for_itself(daemon: Daemon) -> None:
    """And then what was noted for the family's holds: spin, a container without a manifest, a server."""
    daemon.engine, daemon.runner = "spin", "wasi-http"
    daemon.fork_server.says = [[AskProgram("/app.wasm"), OtherEngine("wasmtime")], [Ready()]]
    worker = await launched(daemon)
    assert daemon.asked_forks == ["spin", "wasi-http"]
    assert isinstance(daemon.fork_server.answers[0], Artifact)
    await worker.forks.end(worker)


async def test_an_application_is_compiled_for_the_engine_that_runs_it(daemon: Daemon) -> None:
    """Which is not always the one that looked at it first."""
    daemon.engine = "spin"
    daemon.fork_server.says = [[AskProgram("/a.wasm"), OtherEngine("spin-py")], [AskProgram("/a.wasm"), Ready()]]
    worker = await launched(daemon)
    assert daemon.compiled_for == ["spin", "spin-py"]
    await worker.forks.end(worker)


@pytest.fixture
def packed(daemon: Daemon) -> Iterator[None]:
    """What a worker packs: a block, a directory of files, and that of a compiled module."""
    daemon.engine = "spin"
    files = [memory_file("block", b"packed"), memory_file("files", b"own"), memory_file("directory", b"program")]
    daemon.fork_server.packs = files
    daemon.fork_server.says = [[AskProgram("/a.wasm"), HandsOver(1)], [Ready([15])]]
    yield
    for fd in files:
        os.close(fd)


@pytest.mark.usefixtures("packed")
async def test_an_application_is_handed_over_to_a_worker_without_python(daemon: Daemon) -> None:
    """With its jail, and what it has packed after that. The one that has read it ends."""
    worker = await launched(daemon)
    assert daemon.fork_server.living == [worker.pid]
    assert worker.alone
    assert worker.handled == {15}
    assert daemon.fork_server.entered == [(1, 1, [b"packed", b"", b"own", b"program"])]
    assert daemon.asked_forks == ["spin"]
    await worker.forks.end(worker)


@pytest.mark.usefixtures("packed")
async def test_without_a_zygote_it_stays_with_python(daemon: Daemon) -> None:
    """And is told so: it packs nothing then."""
    daemon.fork_server.has_zygote = False
    worker = await launched(daemon)
    assert daemon.fork_server.living == [worker.pid]
    assert not worker.alone
    plans = daemon.fork_server.plans
    assert [plan.hands_over for plan in plans if isinstance(plan, ContainerApp)] == [NATIVE, False]
    await worker.forks.end(worker)


@pytest.mark.usefixtures("packed")
async def test_what_was_handed_over_and_does_not_load_is_made_anew(daemon: Daemon, tmp_path: Path) -> None:
    said = [AskProgram("/a.wasm"), HandsOver(1)]
    daemon.fork_server.says = [said, [Error(int(DataLoss.code), "it does not load")], said, [Ready()]]
    worker = await launched(daemon)
    assert daemon.discarded == [tmp_path / "artifact"]
    assert daemon.fork_server.living == [worker.pid]
    await worker.forks.end(worker)


@pytest.mark.usefixtures("packed")
async def test_a_launch_that_is_given_up_while_it_hands_over_leaves_nothing(daemon: Daemon) -> None:
    before = memory_files()
    daemon.fork_server.says[1] = []  # it never says that it is ready
    with anyio.move_on_after(0.3) as given_up:
        await launched(daemon)
    assert given_up.cancelled_caught
    assert daemon.fork_server.living == []
    assert memory_files() == before


def memory_files() -> int:
    """How many this process has open."""
    links = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return sum(link.startswith("/memfd:") for link in links)


async def test_engines_that_hand_it_over_to_each_other(daemon: Daemon) -> None:
    daemon.fork_server.says = [[OtherEngine(name)] for name in ("wasi-http", "wasi-sockets", "wasi-http")]
    with pytest.raises(Internal, match="engines hand default/app over to each other"):
        await launched(daemon, FOUND)
    assert daemon.fork_server.living == []


async def test_what_does_not_load_is_thrown_away_and_made_anew_once(daemon: Daemon, tmp_path: Path) -> None:
    broken = Error(int(DataLoss.code), "it does not load")
    daemon.fork_server.says = [[broken], [Ready()]]
    worker = await launched(daemon, FOUND)
    assert daemon.discarded == [tmp_path / "artifact"]
    await worker.forks.end(worker)
    daemon.fork_server.says = [[broken], [broken]]
    with pytest.raises(DataLoss, match="it does not load"):
        await launched(daemon, FOUND)
    assert daemon.fork_server.living == []


async def test_an_error_is_the_workers(daemon: Daemon) -> None:
    daemon.fork_server.says = [[Warning("no realtime priority"), Error(3, "not valid")]]
    with pytest.raises(InvalidArgument, match="not valid"):
        await launched(daemon, FOUND)
    assert daemon.fork_server.living == []


async def test_a_program_that_is_nowhere_is_missed_in_the_jailers_words(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(_container: str, _name: str, _fd: int | None, _digest: str) -> None:
        raise NotFound("the image has no WebAssembly layer")

    monkeypatch.setattr(daemon, "program", none)
    with pytest.raises(NotFound, match=r"app\.wasm: executable file not found in \$PATH"):
        await launched(daemon, ProgramFile("/app.wasm", None, "app.wasm: executable file not found in $PATH"))


async def test_what_cannot_be_answered_is_refused_and_the_worker_goes_on(daemon: Daemon) -> None:
    daemon.fork_server.says = [[AskImage(), Ready()]]
    worker = await launched(daemon)
    assert daemon.fork_server.answers == [Refusal(int(NotFound.code), "there are no images here")]
    await worker.forks.end(worker)


async def test_a_worker_that_dies_while_it_is_set_up(daemon: Daemon) -> None:
    daemon.fork_server.says = [[]]

    async def kill() -> None:
        while not daemon.fork_server.living:  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(0.001)
        daemon.fork_server.hang_up()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kill)
        with pytest.raises(Internal, match="the worker process died while it was set up"):
            await launched(daemon, FOUND)
