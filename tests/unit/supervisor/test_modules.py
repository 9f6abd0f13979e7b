"""Compilations by a daemon: who owns them, how many there are, where they live, what is said of them."""

import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from shimd import paths
from shimd.cgroup import Cgroup, layout
from shimd.cgroup.layout import Layout
from shimd.errors import InvalidArgument, ResourceExhausted, ShimdError, Unavailable, Unimplemented
from shimd.supervisor.background import Background
from shimd.supervisor.modules.compilations import Compilation, Waiter
from shimd.supervisor.modules.compile_cgroups import _memory_only, prefix
from shimd.supervisor.modules.modules import Modules
from shimd.supervisor.workers.fork_servers import ForkServers
from shimd.supervisor.workers.programs import Program
from tests.e2e import leftovers
from tests.unit.engines.programs import component, module, slow

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.geteuid() != 0, reason="cgroups and namespaces need root")]
#: Functions of a module that takes seconds to compile.
SECONDS = 5_000
A, B = Waiter("test", "a", "wasmtime"), Waiter("test", "b", "wasmtime")
OTHER = Waiter("test", "b", "wasmer")


@pytest.fixture
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNTIME", "STATE", "CACHE"):
        monkeypatch.setenv(f"SHIMD_{name}_DIR", str(tmp_path / name))
        (tmp_path / name).mkdir()


@asynccontextmanager
async def daemon() -> AsyncIterator[tuple[Modules, anyio.CancelScope]]:
    """As ``serve`` has it: who reads from fork servers outlives all others."""
    with anyio.fail_after(120):
        async with anyio.create_task_group() as outer:
            async with anyio.create_task_group() as tasks:
                modules = Modules(ForkServers(Background(outer)), Background(tasks))
                yield modules, tasks.cancel_scope
                tasks.cancel_scope.cancel()
            outer.cancel_scope.cancel()


@pytest.fixture
async def modules(directories: None) -> AsyncIterator[Modules]:
    async with daemon() as (modules, _end):
        yield modules
    assert not cgroups()


def cgroups() -> list[str]:
    roots = _memory_only(layout.current()).roots
    own = prefix(paths.runtime_dir())
    return [f"{root}/{name}" for root in roots for name in os.listdir(root) if name.startswith(own)]


@pytest.fixture
def files() -> Iterator["Files"]:
    files = Files()
    yield files
    for fd in files.fds:
        os.close(fd)


class Files:
    def __init__(self) -> None:
        self.fds: list[int] = []

    def __call__(self, data: bytes) -> int:
        fd = os.memfd_create("program")
        os.write(fd, data)
        self.fds.append(fd)
        return fd


@asynccontextmanager
async def stopped(modules: Modules) -> AsyncIterator[tuple[Compilation, int]]:
    """The one compilation, with its worker, which stands still meanwhile."""
    await until(lambda: any(pids(cgroup) for cgroup in cgroups()))
    (cgroup,) = cgroups()
    (worker,) = pids(cgroup)
    os.kill(worker, signal.SIGSTOP)
    try:
        yield modules.compilations.all[0], worker
    finally:
        if cgroups():
            os.kill(worker, signal.SIGCONT)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 — no event tells of it
        await anyio.sleep(0.01)


def pids(directory: str) -> list[int]:
    return [int(pid) for pid in Path(directory, "cgroup.procs").read_text().split()]


def told(caplog: pytest.LogCaptureFixture, *words: str) -> list[str]:
    return [text for text in caplog.messages if all(word in text for word in words)]


async def test_it_goes_on_when_nobody_waits_and_is_made_once(
    modules: Modules, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wasm = files(slow(SECONDS))
    async with anyio.create_task_group() as callers:
        for waiter in (A, B):
            callers.start_soon(modules.compiled, waiter, "/slow.wasm", wasm)
        async with stopped(modules) as (compilation, _worker):
            assert {wait.waiter for wait in modules.compilations.waits} == {A, B}
            callers.cancel_scope.cancel()
            await until(lambda: not modules.compilations.waits)
            assert modules.compilations.all == [compilation]
    found = await modules.compiled(B, "/slow.wasm", wasm)
    assert found.artifact.exists()
    (start,) = told(caplog, "compiling /slow.wasm for wasmtime (container ")
    assert told(caplog, "compiled /slow.wasm for wasmtime in ", f" bytes, sha256 {compilation.digest[:12]})")
    assert f"{os.fstat(wasm).st_size} bytes" in start
    assert len(told(caplog, "waits for /slow.wasm no more")) == 2


async def test_the_end_of_the_daemon_ends_it(directories: None, files: Files, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with daemon() as (modules, end), anyio.create_task_group() as callers:
        callers.start_soon(modules.compiled, A, "/slow.wasm", files(slow(SECONDS)))
        async with stopped(modules) as (_compilation, worker):
            callers.cancel_scope.cancel()
            end.cancel()
    assert not cgroups()
    assert not os.path.exists(f"/proc/{worker}")
    assert not list(paths.cache_dir().glob("*/*/*"))
    assert told(caplog, "compiling /slow.wasm for wasmtime was broken off after ")


async def test_a_worker_gives_way_and_is_the_first_to_die(modules: Modules, files: Files) -> None:
    async with anyio.create_task_group() as callers:
        callers.start_soon(modules.compiled, A, "/slow.wasm", files(slow(SECONDS)))
        await until(lambda: any(pids(cgroup) for cgroup in cgroups()))
        (cgroup,) = cgroups()
        (worker,) = pids(cgroup)
        score = Path(f"/proc/{worker}/oom_score_adj")
        await until(lambda: score.read_text() == "1000\n")
        assert os.getpriority(os.PRIO_PROCESS, worker) == os.getpriority(os.PRIO_PROCESS, 0) + 10


async def test_as_many_at_a_time_as_there_are_processors(
    modules: Modules, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """The others in the order in which they came."""
    caplog.set_level(logging.INFO)
    modules._turns.total_tokens = 1
    async with anyio.create_task_group() as callers:
        callers.start_soon(modules.compiled, A, "/first.wasm", files(slow(SECONDS)))
        async with stopped(modules):
            for number in range(3):
                other = files(module(exports=("_start", f"f{number}")))
                callers.start_soon(modules.compiled, B, f"/{number}.wasm", other)
                await until(lambda: len(modules.compilations.all) == number + 2)  # noqa: B023
            with pytest.raises(Unimplemented, match=r"io\.containerd\.spin\.v2"):  # which need not wait
                await modules.compiled(B, "/spin.wasm", files(component("fermyon:spin/key-value@2.0.0")))
            assert [one.queued for one in modules.compilations.all] == [False, True, True, True]
    assert told(caplog, "/spin.wasm for wasmtime was refused after ")
    order = [text.split()[1] for text in told(caplog, "compil")]
    assert order == [name for name in ("/first.wasm", "/0.wasm", "/1.wasm", "/2.wasm") for _ in ("start", "end")]


async def test_what_waits_for_its_turn_is_dropped_when_nobody_waits_for_it(
    modules: Modules, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    modules._turns.total_tokens = 1
    async with anyio.create_task_group() as callers:
        callers.start_soon(modules.compiled, A, "/first.wasm", files(slow(SECONDS)))
        async with stopped(modules):
            async with anyio.create_task_group() as others:
                for waiter in (B, OTHER):
                    unwanted = files(module(exports=("_start", "unwanted")))
                    others.start_soon(modules.compiled, waiter, "/unwanted.wasm", unwanted)
                await until(lambda: modules._turns.statistics().tasks_waiting == 2)
                others.cancel_scope.cancel()
            await until(lambda: len(modules.compilations.all) == 1)  # at once, and not when their turn comes
            assert len(list(paths.cache_dir().glob("*/*/tmp.*"))) == 1
    for engine in ("wasmtime", "wasmer"):
        assert len(told(caplog, f"/unwanted.wasm for {engine} (", "is not compiled: nobody waits for it any more")) == 1
    assert not told(caplog, "compiling /unwanted.wasm")
    assert not told(caplog, "compiled all the same")


async def test_one_that_others_wait_for_is_not_dropped(modules: Modules, files: Files) -> None:
    modules._turns.total_tokens = 1
    wasm = files(module(exports=("_start", "wanted")))
    async with anyio.create_task_group() as callers:
        callers.start_soon(modules.compiled, A, "/first.wasm", files(slow(SECONDS)))
        async with stopped(modules):
            async with anyio.create_task_group() as others:
                others.start_soon(modules.compiled, A, "/app.wasm", wasm)
                await until(lambda: len(modules.compilations.all) == 2)
                (_first, wanted) = modules.compilations.all
                callers.start_soon(modules.compiled, B, "/app.wasm", wasm)
                await until(lambda: len(modules.compilations.waits) == 3)
                others.cancel_scope.cancel()
            await until(lambda: len(modules.compilations.waits) == 2)
            assert modules.compilations.all[1:] == [wanted]


async def test_swap_is_no_way_around_the_limit(modules: Modules, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIMD_COMPILE_MEMORY", str(64 << 20))
    async with anyio.create_task_group() as callers:
        callers.start_soon(modules.compiled, A, "/slow.wasm", files(slow(SECONDS)))
        async with stopped(modules):
            (cgroup,) = map(Path, cgroups())
            swap = cgroup / "memory.memsw.limit_in_bytes"
            swap_alone = cgroup / "memory.swap.max"
            if not (swap.exists() or swap_alone.exists()):
                pytest.skip("this kernel counts no swap")
            assert swap_alone.exists() or int(swap.read_text()) == 64 << 20
            assert swap.exists() or swap_alone.read_text() == "0\n"
            callers.cancel_scope.cancel()


async def test_one_that_takes_too_long(modules: Modules, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sleeps, or was stopped: no processor time is used up."""
    monkeypatch.setenv("SHIMD_COMPILE_SECONDS", "1")
    failed: list[str] = []

    async def ask() -> None:
        with pytest.raises(ResourceExhausted) as error:
            await modules.compiled(A, "/slow.wasm", files(slow(SECONDS)))
        failed.append(str(error.value))

    async with anyio.create_task_group() as callers:
        callers.start_soon(ask)
        async with stopped(modules) as (_compilation, worker):
            await until(lambda: bool(failed))
    assert failed == ["/slow.wasm: compiling takes longer than SHIMD_COMPILE_SECONDS allows"]
    assert not os.path.exists(f"/proc/{worker}")


async def test_more_memory_than_is_allowed(modules: Modules, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIMD_COMPILE_MEMORY", str(48 << 20))
    with pytest.raises(ResourceExhausted, match=r"^/slow\.wasm: compiling takes more memory than SHIMD_COMPILE_MEMORY"):
        await modules.compiled(A, "/slow.wasm", files(slow(10 * SECONDS)))


async def test_without_a_cgroup_there_is_a_warning_once(
    modules: Modules, files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("shimd.supervisor.modules.compile_cgroups.limit", lambda: -5)  # which the kernel refuses
    for number in range(2):
        await modules.compiled(A, f"/{number}.wasm", files(module(exports=("_start", f"f{number}"))))
    assert len(told(caplog, "compile workers have no cgroup, and so no limit but of their address space: ")) == 1


async def test_on_version_2_a_worker_is_born_in_its_cgroup(
    directories: None, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    unified = layout.current().unified
    if unified is None:
        pytest.skip("no cgroup of version 2 here")
    monkeypatch.setattr("shimd.supervisor.modules.compile_cgroups._memory_only", lambda _where: Layout(unified=unified))
    monkeypatch.setattr(
        "shimd.supervisor.modules.compile_cgroups.limit", lambda: -1
    )  # the controller may be another version's
    own = Path(unified)
    async with daemon() as (modules, _end), anyio.create_task_group() as callers:
        callers.start_soon(modules.compiled, A, "/slow.wasm", files(slow(SECONDS)))
        await until(lambda: any(pids(str(found)) for found in own.glob(f"{prefix(paths.runtime_dir())}*")))
    assert not list(own.glob(f"{prefix(paths.runtime_dir())}*"))


async def test_what_cannot_run_is_refused_for_who_asks(
    modules: Modules, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """Before it is compiled, which would fail otherwise; and not for another engine."""
    caplog.set_level(logging.INFO)
    data = module(("keyvalue", "keyvalue::get"), ("canonical_abi", "resource_drop_keyvalue"))
    broken = data + b"\x0a\xff\xff\xff\xff"
    with pytest.raises(Unimplemented, match="Slight's modules run on slight"):
        await modules.compiled(A, "/app.wasm", files(broken))
    assert told(caplog, "/app.wasm for wasmtime was refused after ", "Slight's modules run on slight")
    with pytest.raises(InvalidArgument, match="not valid WebAssembly"):
        await modules.compiled(Waiter("test", "c", "slight"), "/app.wasm", files(broken))
    outcomes: dict[str, object] = {}

    async def ask(engine: str, wasm: int) -> None:
        try:
            outcomes[engine] = await modules.compiled(Waiter("test", "c", engine), "/app.wasm", wasm)
        except ShimdError as error:
            outcomes[engine] = error

    async with anyio.create_task_group() as callers:
        for engine in ("wasmtime", "slight"):
            callers.start_soon(ask, engine, files(data))
    assert isinstance(outcomes["wasmtime"], Unimplemented)
    assert isinstance(outcomes["slight"], Program)


async def test_a_spin_component_is_refused_before_its_compilation(modules: Modules, files: Files) -> None:
    data = component("fermyon:spin/key-value@2.0.0")
    with pytest.raises(Unimplemented, match=r"io\.containerd\.spin\.v2"):
        await modules.compiled(A, "/app.wasm", files(data))
    assert await modules.compiled(Waiter("test", "c", "spin"), "/app.wasm", files(data))


async def test_a_program_that_changes_while_it_waits_is_not_taken_for_what_it_was(
    modules: Modules, files: Files
) -> None:
    """Its compiled form would be given to all who have the program that it was."""
    modules._turns.total_tokens = 1
    wasm = files(module(exports=("_start", "before")))
    async with anyio.create_task_group() as callers:
        callers.start_soon(modules.compiled, A, "/first.wasm", files(slow(SECONDS)))
        async with stopped(modules):

            async def ask() -> None:
                with pytest.raises(Unavailable, match=r"^/app\.wasm: the program was changed while it was read"):
                    await modules.compiled(B, "/app.wasm", wasm)

            callers.start_soon(ask)
            await until(lambda: len(modules.compilations.all) == 2)
            os.pwrite(wasm, module(exports=("_start", "beyond")), 0)


async def test_what_an_earlier_daemon_left_is_swept(directories: None, files: Files) -> None:
    """And what another's has is not."""
    where = _memory_only(layout.current())
    left = Cgroup.create(f"/{prefix(paths.runtime_dir())}left", {}, where=where)
    other = Cgroup.create("/shimd-compile-other-one", {}, where=where)
    try:
        process = await anyio.open_process(["sleep", "600"])
        for directory in left.directories:
            Path(directory, "cgroup.procs").write_text(str(process.pid))
        async with daemon() as (modules, _end):
            await process.wait()
            await modules.compiled(A, "/app.wasm", files(module()))
            leftovers.settled(lambda: cgroups() if left.directories[0] in cgroups() else [])
            assert not cgroups()
        assert all(os.path.isdir(directory) for directory in other.directories)
    finally:
        other.remove()
