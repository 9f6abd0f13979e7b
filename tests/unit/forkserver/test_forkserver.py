"""A real fork server: what it promises its supervisor, and what it keeps when that one is gone."""

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import anyio
import pytest

from shimd import paths, zygote
from shimd.engine import Engine
from shimd.engines.registry import engine_reference, engine_version
from shimd.engines.wasmtime import WasmtimeEngine
from shimd.errors import DataLoss, Internal, InvalidArgument, ShimdError, Unavailable, Unimplemented, from_code
from shimd.forkserver.main import ForkServer
from shimd.linux.memory_file import memory_file
from shimd.oci import Process
from shimd.protocol.constants import JAIL_FD, MAX_PACKET, VERSION, Policy
from shimd.protocol.fork_server import Event, Exited, Forget, Hello, List, Listed, Spawned, decode_event
from shimd.protocol.packets import receive, send
from shimd.protocol.plans import HostApp, NativeCommand
from shimd.protocol.system_calls import SystemCalls, of_host
from shimd.protocol.worker import Enter, Error, Ready, Start, Warning
from shimd.supervisor.modules.modules import compile_in_worker
from shimd.supervisor.modules.source import Source, source
from shimd.supervisor.workers.fork_client import Birthplace, ForkClient, Worker, connect, launch
from shimd.supervisor.workers.without_python import engine_block, may_wait
from tests.unit.engines.test_contract import EXIT as EXIT_WITH
from tests.unit.engines.test_contract import SPINS

pytestmark = pytest.mark.anyio
EXIT = EXIT_WITH % 7


class Server:
    """A fork server of the test's own, and the connection of the newest supervisor."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "worker.sock"
        sock, self.pid = launch("wasmtime", self.path)
        self.forks = ForkClient(sock)
        self.null = os.open(os.devnull, os.O_RDWR)

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[ForkClient]:
        """For as long as the block lasts; what follows connects anew."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.forks.run)
            yield self.forks
            tasks.cancel_scope.cancel()

    def reconnect(self) -> None:
        self.forks = ForkClient(connect(self.path))

    async def compiled(self, wat: str) -> Path:
        artifact = self.directory / f"made{len(os.listdir(self.directory))}" / "artifact"
        artifact.parent.mkdir()
        wasm = os.memfd_create("wasm")
        try:
            os.pwrite(wasm, wat.encode(), 0)
            await compile_in_worker(self.forks, "app.wat", await source("app.wat", wasm), artifact)
        finally:
            os.close(wasm)
        return artifact

    async def ready(self, key: str, artifact: Path) -> Worker:
        worker = await self.spawn(key, app(artifact), of_host())
        packet = await worker.receive()
        assert packet is not None
        assert isinstance(packet[0], Ready), packet
        return worker

    async def spawn(self, key: str, plan: HostApp, calls: SystemCalls) -> Worker:
        fds = [memory_file("calls", calls.packed()), os.open(Path(plan.artifact).parent, os.O_PATH)]
        plan = replace(plan, view=JAIL_FD)
        try:
            return await self.forks.spawn(key, plan, (self.null,) * 3, jail=fds, block=engine_block("wasmtime", plan))
        finally:
            for fd in fds:
                os.close(fd)

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def app(artifact: Path, program: str = "app") -> HostApp:
    return HostApp("a", Process(args=[program], cwd="/"), str(artifact))


async def said(worker: Worker) -> Error:
    """Why it does not run."""
    packet = await worker.receive()
    assert packet is not None
    assert isinstance(packet[0], Error), packet
    return packet[0]


@asynccontextmanager
async def started(
    directory: Path, kind: str, monkeypatch: pytest.MonkeyPatch, patience: float = 60
) -> AsyncIterator[Server]:
    """A fork server whose workers are the zygote's, or run in Python."""
    monkeypatch.setenv("SHIMD_ZYGOTE", "yes" if kind == "zygote" else "no")
    zygote.available.cache_clear()
    server = Server(directory)
    with anyio.fail_after(patience):
        yield server
    zygote.available.cache_clear()
    os.close(server.null)
    os.kill(server.pid, signal.SIGKILL)
    os.waitpid(server.pid, 0)  # noqa: ASYNC222 — it is dead


@pytest.fixture(params=["zygote", "python"])
async def server(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Server]:
    async with started(tmp_path, request.param, monkeypatch) as server:
        yield server


async def test_exit_statuses(server: Server) -> None:
    async with server.supervised() as forks:
        worker = await server.ready("a", await server.compiled(EXIT))
        worker.send(Start())
        await worker.exited.wait()
        assert worker.status == 7 << 8
        await forks.forget(worker)


async def test_steps_are_taken_before_the_guest_runs(server: Server) -> None:
    """The engine has loaded the program by then, and what fails is told in the step's own words."""
    async with server.supervised() as forks:
        plan = app(await server.compiled(EXIT))
        calls = SystemCalls()
        calls.add("chdir", b"/nowhere/first", says='the "first"', policy=Policy.WARN)
        calls.add("chdir", b"/nowhere/masked", says="none", policy=Policy.IF_THERE)
        calls.barrier()
        calls.add("chdir", b"/nowhere/second", says="the second")
        worker = await server.spawn("a", plan, calls)
        said = [await worker.receive(), await worker.receive()]
        reason = "no such file or directory"
        assert [packet and packet[0] for packet in said] == [
            Warning(f'the "first": {reason}'),
            Error(InvalidArgument.code, f"the second: {reason}"),
        ]
        await forks.end(worker)


async def test_a_long_sentence_is_told_whole(server: Server) -> None:
    says = "é" * 9000
    async with server.supervised() as forks:
        plan = app(await server.compiled(EXIT))
        calls = of_host()
        calls.add("chdir", b"/nowhere", says=says)
        worker = await server.spawn("a", plan, calls)
        assert (await said(worker)).message == f"{says}: no such file or directory"
        await forks.end(worker)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for another user")
@pytest.mark.parametrize("late", [False, True])
async def test_programs_are_loaded_where_the_calls_say(server: Server, late: bool) -> None:
    """So that a jailer can have it done when no privilege is left: nobody may read this one."""
    async with server.supervised() as forks:
        artifact = await server.compiled(EXIT)
        for path in artifact.iterdir():
            os.chown(path, 0, 0)
            path.chmod(0o600)
        calls = SystemCalls()
        calls.barrier()
        if not late:
            calls.load()
        calls.add("setresuid", 65534, 65534, 65534, says="nobody")
        if late:
            calls.load()
        calls.add("chdir", b"/", says="the next")
        worker = await server.spawn("a", app(artifact), calls)
        packet = await worker.receive()
        assert packet is not None
        if late:
            assert isinstance(packet[0], Error) and packet[0].code == DataLoss.code, packet
            assert "does not load" in packet[0].message
        else:
            assert isinstance(packet[0], Ready), packet
        await forks.end(worker)


async def test_an_artefact_that_does_not_load(server: Server) -> None:
    async with server.supervised() as forks:
        artifact = await server.compiled(EXIT)
        next(file for name in ("module", "native") if (file := artifact / name).exists()).write_bytes(b"broken")
        worker = await server.spawn("a", app(artifact), of_host())
        error = await said(worker)
        assert error.code == DataLoss.code
        assert error.message.startswith("the compiled module does not load"), error
        await forks.end(worker)


async def test_an_entry_that_is_none(server: Server) -> None:
    async with server.supervised() as forks:
        plan = app(await server.compiled(EXIT), "app#nothing")
        with pytest.raises(InvalidArgument, match="exports no function nothing"):
            worker = await server.spawn("a", plan, of_host())  # the zygote's forks no worker for it
            error = await said(worker)
            await forks.end(worker)
            raise from_code(error.code, error.message)


async def test_a_zygote_that_is_killed_is_replaced(server: Server) -> None:
    async with server.supervised() as forks:
        artifact = await server.compiled(EXIT)
        first = await server.ready("first", artifact)
        for pid in set(_children(server.pid)) - {first.pid}:
            os.kill(pid, signal.SIGKILL)
            while _lives(pid):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        second = await server.ready("second", artifact)
        for worker in (first, second):
            worker.send(Start())
            await worker.exited.wait()
            assert worker.status == 7 << 8
            await forks.forget(worker)


@pytest.mark.parametrize("server", ["python"], indirect=True)
async def test_without_a_zygote_a_worker_takes_python(server: Server) -> None:
    async with server.supervised() as forks:
        pending = await forks.spawn_early("a", (server.null,) * 3)
        with pytest.raises(Unimplemented):
            await pending.worker()
        assert _children(server.pid) == []


@pytest.mark.parametrize("server", ["zygote"], indirect=True)
async def test_a_worker_that_was_begun_and_is_not_wanted(server: Server) -> None:
    """Its jail could not be made, say: it goes, and nothing of it stays."""
    async with server.supervised() as forks:
        kept = await server.ready("kept", await server.compiled(SPINS))
        before, descriptors = _children(server.pid), server.descriptors()
        pending = await forks.spawn_early("a", (server.null,) * 3)
        await pending.end()
        assert _children(server.pid) == before
        assert await forks.adopt() == []  # it has answered
        assert server.descriptors() == descriptors
        await forks.end(kept)


async def test_a_worker_that_was_not_started_is_started_by_the_next_supervisor(server: Server) -> None:
    """It had said that it was ready, or had not been asked yet."""
    async with server.supervised():
        artifact = await server.compiled(EXIT)
        first, second = await server.ready("heard", artifact), await server.spawn("unheard", app(artifact), of_host())
    for worker in (first, second):
        worker.close()
    server.reconnect()
    async with server.supervised() as forks:
        found = {worker.key: worker for worker in await forks.adopt()}
        assert {key: worker.pid for key, worker in found.items()} == {"heard": first.pid, "unheard": second.pid}
        packet = await found["unheard"].receive()
        assert packet is not None
        assert isinstance(packet[0], Ready)
        for worker in found.values():
            worker.send(Start())
            await worker.exited.wait()
            assert worker.status == 7 << 8
            await forks.forget(worker)


async def test_workers_that_nobody_comes_to_start_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIMD_KEEP_EXITS", "0.2")
    server = Server(tmp_path)
    with anyio.fail_after(60):
        async with server.supervised() as forks:
            early = await (await forks.spawn_early("early", (server.null,) * 3)).worker()
            ready, running = [await server.ready(key, await server.compiled(SPINS)) for key in ("a", "b")]
            running.send(Start())
            pidfds = [os.pidfd_open(worker.pid) for worker in (early, ready)]
        for pidfd in pidfds:
            await anyio.wait_readable(pidfd)
            os.close(pidfd)
        assert _lives(running.pid), "one that runs does not mind"
        server.reconnect()
        async with server.supervised() as forks:
            found = {worker.key: worker for worker in await forks.adopt()}
            for key in ("early", "a"):
                await found[key].exited.wait()
                assert found[key].status == 70 << 8
            for worker in (*found.values(), early, ready, running):
                await forks.end(worker) if worker.forks is forks else worker.close()
    os.close(server.null)
    os.kill(server.pid, signal.SIGKILL)
    os.waitpid(server.pid, 0)  # noqa: ASYNC222 — it is dead


@pytest.mark.parametrize("server", ["zygote"], indirect=True)
async def test_a_worker_that_cannot_be_told_ends(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_name: str, _data: bytes) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with server.supervised() as forks:
        before = _children(server.pid)
        pending = await forks.spawn_early("a", (server.null,) * 3)
        monkeypatch.setattr("shimd.supervisor.workers.fork_client.memory_file", none)
        with pytest.raises(OSError, match="Too many open files"):
            await pending.enter(b"", [server.null])
        assert set(_children(server.pid)) <= {*before, *_zygotes(server.pid)}


@pytest.mark.parametrize("server", ["zygote"], indirect=True)
async def test_a_namespace_that_is_none_is_that_spawns_error_only(server: Server) -> None:
    async with server.supervised() as forks:
        pending = await forks.spawn_early("a", (server.null,) * 3, Birthplace("/proc/self/ns/net"))
        with pytest.raises(Internal, match="invalid argument"):
            await pending.worker()
        await (await forks.spawn_early("b", (server.null,) * 3)).end()


def test_only_what_nobody_sees_waits_for_its_jail() -> None:
    assert may_wait(Birthplace("new"))
    assert may_wait(Birthplace())
    assert not may_wait(Birthplace("/proc/1/ns/pid"))


@pytest.mark.parametrize("server", ["zygote"], indirect=True)
async def test_a_worker_that_is_told_nonsense_ends(server: Server) -> None:
    async with server.supervised() as forks:
        worker = await (await forks.spawn_early("a", (server.null,) * 3)).worker()
        worker.send(Enter())  # without a descriptor
        await worker.exited.wait()
        assert worker.status == 70 << 8
        await forks.forget(worker)


async def test_a_bad_module_is_one_sentence(server: Server) -> None:
    async with server.supervised():
        with pytest.raises(InvalidArgument, match=r"^app\.wat: not valid WebAssembly: .+"):
            await server.compiled("(module (func")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a pid namespace")
async def test_a_compile_worker_is_the_first_of_its_own_pid_namespace(server: Server) -> None:
    """It sees nobody whom it could kill, and nothing that it starts outlives it."""
    reader, writer = os.pipe()  # until this ends, the worker waits for its module
    namespaces: list[str] = []

    async def look() -> None:
        while not (children := set(_children(server.pid)) - before):  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(0.01)
        namespaces.append(os.readlink(f"/proc/{children.pop()}/ns/pid"))
        os.write(writer, EXIT.encode())
        os.close(writer)

    (server.directory / "made").mkdir()
    async with server.supervised() as forks, anyio.create_task_group() as tasks:
        await forks.adopt()  # it has answered: its zygote is there, if it has one
        before = set(_children(server.pid))
        tasks.start_soon(look)
        await compile_in_worker(forks, "app.wat", Source(reader, ""), server.directory / "made/artifact")
    os.close(reader)
    (namespace,) = namespaces
    assert namespace != os.readlink("/proc/self/ns/pid")
    assert (server.directory / "made/artifact").exists()


def _zygotes(pid: int) -> list[int]:
    """What runs from memory."""
    return [child for child in _children(pid) if "memfd" in os.readlink(f"/proc/{child}/exe")]


def _lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has been waited for already
        return False


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_a_plan_that_makes_no_sense_ends_its_worker_only(server: Server) -> None:
    async with server.supervised() as forks:
        plan = HostApp("bad", Process(args=[], cwd="/"), "")
        worker = await forks.spawn("bad", plan, (server.null,) * 3)
        assert "IndexError" in (await said(worker)).message
        await worker.exited.wait()
        await forks.forget(worker)
        good = await server.ready("good", await server.compiled(EXIT))
        good.send(Start())
        await good.exited.wait()
        await forks.forget(good)


async def test_a_worker_outlives_its_supervisor_and_so_does_its_exit(server: Server) -> None:
    async with server.supervised():
        artifact = await server.compiled(SPINS)
        running, dying = await server.ready("running", artifact), await server.ready("dying", artifact)
        running.send(Start())
        dying.send(Start())
    os.kill(dying.pid, signal.SIGTERM)  # nobody is connected
    server.reconnect()
    async with server.supervised() as forks:
        found = {worker.key: worker for worker in await forks.adopt()}
        assert {key: worker.pid for key, worker in found.items()} == {"running": running.pid, "dying": dying.pid}
        await found["dying"].exited.wait()
        assert os.waitstatus_to_exitcode(found["dying"].status or 0) in (-signal.SIGTERM, 128 + signal.SIGTERM)
        found["running"].signal(signal.SIGKILL)
        await found["running"].exited.wait()
        for worker in found.values():
            await forks.forget(worker)
    server.reconnect()
    async with server.supervised() as forks:
        assert await forks.adopt() == []
    for worker in (running, dying):
        worker.close()


async def test_an_exit_has_its_time_whatever_its_fork_server_is_at(server: Server) -> None:
    """It does not run: stopped here, as busy with something else elsewhere."""
    async with server.supervised() as forks:
        worker = await server.ready("a", await server.compiled(SPINS))
        worker.send(Start())
        os.kill(server.pid, signal.SIGSTOP)
        before = time.time_ns()
        worker.signal(signal.SIGKILL)
        while not worker.died_at:  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(0.01)
        after = time.time_ns()
        os.kill(server.pid, signal.SIGCONT)
        await worker.exited.wait()
        assert worker.status == signal.SIGKILL
        assert before <= worker.exited_at <= after
        await forks.forget(worker)


TRACER = """
import ctypes, sys, time
assert ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), None, None) == 0  # PTRACE_SEIZE
print(flush=True)
sys.stdin.read()
"""


async def test_one_that_is_traced_has_its_true_status_when_the_tracer_has_gone(server: Server) -> None:
    """Until then it cannot be waited for: who looks for others' children that ended must not take it."""
    async with server.supervised() as forks:
        script = f"read _line <{server.directory}/fifo; exit 7"
        os.mkfifo(server.directory / "fifo")
        plan = NativeCommand(str(server.directory), ["/bin/sh", "-c", script])
        worker = await forks.spawn("a", plan, (server.null,) * 3)
        await worker.becomes_another()
        command = [sys.executable, "-c", TRACER, str(worker.pid)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracer:  # noqa: ASYNC220
            assert tracer.stdin is not None and tracer.stdout is not None
            tracer.stdout.readline()
            (server.directory / "fifo").write_text("\n")
            while not worker.died_at:  # noqa: ASYNC110 — no event tells of it
                await anyio.sleep(0.01)
            await forks.adopt()  # the fork server has seen it, too
            assert worker.status is None
        await worker.exited.wait()
        assert worker.status == 7 << 8
        await forks.forget(worker)


async def test_nothing_leaks(server: Server) -> None:
    async with server.supervised() as forks:
        artifact = await server.compiled(EXIT)
        before = server.descriptors()
        for number in range(30):
            worker = await server.ready(str(number), artifact)
            worker.send(Start())
            await worker.exited.wait()
            await forks.forget(worker)
        assert server.descriptors() <= before + 1  # the last forget may be on its way


async def test_what_it_has_noted_is_forgotten(server: Server) -> None:
    path = paths.noted_exits(server.path)
    async with server.supervised() as forks:
        artifact = await server.compiled(EXIT)
        for _ in range(3):
            workers = [await server.ready(str(number), artifact) for number in range(3)]
            for worker in workers:
                worker.send(Start())
                await worker.exited.wait()
            size = path.stat().st_size
            for worker in workers:
                await forks.forget(worker)
            with pytest.raises(Internal):  # answered after what was asked for before
                await forks.follow("nobody", 1)
        assert (path.stat().st_size, any(path.read_bytes())) == (size, False)


async def test_one_without_descriptors_makes_workers_that_have_some(server: Server) -> None:
    async with server.supervised() as forks:
        artifact = await server.compiled(EXIT)
        _soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (server.descriptors() + 12, hard))
        plan, calls = replace(app(artifact), view=JAIL_FD), memory_file("calls", of_host().packed())
        view = os.open(artifact.parent, os.O_PATH)
        worker = await forks.spawn("python", plan, (server.null,) * 3, jail=[calls, view])
        os.close(calls)
        os.close(view)
        packet = await worker.receive()
        assert packet is not None
        assert isinstance(packet[0], Ready), packet
        await forks.end(worker)


async def test_a_worker_has_no_descriptor_but_its_own(server: Server) -> None:
    async with server.supervised() as forks:
        artifact = await server.compiled(SPINS)
        first, second = await server.ready("a", artifact), await server.ready("b", artifact)
        assert {"0", "1", "2", "3"} <= set(os.listdir(f"/proc/{second.pid}/fd"))
        sockets = [
            link
            for fd in os.listdir(f"/proc/{second.pid}/fd")
            if (link := os.readlink(f"/proc/{second.pid}/fd/{fd}")).startswith("socket:")
        ]
        assert len(sockets) == 1
        for worker in (first, second):
            worker.signal(signal.SIGKILL)
            await worker.exited.wait()
            await forks.forget(worker)


async def test_when_it_dies_who_waits_is_told(server: Server) -> None:
    async with server.supervised() as forks:
        os.kill(server.pid, signal.SIGSTOP)
        errors: list[ShimdError] = []

        async def spawn() -> None:
            try:
                await forks.spawn("late", app(Path("/nowhere")), (server.null,) * 3)
            except ShimdError as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(spawn)
            await anyio.sleep(0.05)
            os.kill(server.pid, signal.SIGKILL)
        assert [type(error) for error in errors] == [Unavailable]
        with pytest.raises(Unavailable, match="the fork server is gone"):
            await forks.spawn("later", app(Path("/nowhere")), (server.null,) * 3)


@pytest.mark.parametrize(
    "garbage", [b"no json", b"[]", b'"Spawn"', b'{"type": "Spawn"}', b'{"type": "Nope"}', b"\xff" * 70]
)
async def test_garbage_ends_only_the_connection(server: Server, garbage: bytes) -> None:
    async with server.supervised():
        artifact = await server.compiled(EXIT)
    stranger = connect(server.path)
    stranger.setblocking(False)
    stranger.send(garbage)
    answers: list[bytes] = []
    while not answers or answers[-1]:
        await anyio.wait_readable(stranger)
        answers.append(stranger.recv(MAX_PACKET))
    assert len(answers) == 2, "its greeting, and the end"
    stranger.close()
    server.reconnect()
    async with server.supervised() as forks:
        worker = await server.ready("after", artifact)
        worker.send(Start())
        await worker.exited.wait()
        await forks.forget(worker)


async def left_behind(server: Server, script: str) -> tuple[Worker, int]:
    """A worker that became a program, which has ended, and the pid of what that left."""
    plan = NativeCommand(str(server.directory), ["/bin/sh", "-c", f"{script} & echo $! >pid"])
    worker = await server.forks.spawn(f"left {script}", plan, (server.null,) * 3)
    assert await worker.receive() is None
    await worker.exited.wait()
    return worker, int((server.directory / "pid").read_text())


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_a_program_leaves_is_followed(server: Server, when: str) -> None:
    """Whether it ends before or after we ask for it."""
    async with server.supervised() as forks:
        first, pid = await left_behind(server, "(sleep 0.3; exit 7)")
        while when == "before" and has_not_ended(pid):  # noqa: ASYNC110 — another process ends, of which nobody tells us
            await anyio.sleep(0.01)
        if when == "before":
            await server.compiled(EXIT)  # so that the server has looked for children that ended
        worker = await forks.follow("followed", pid)
        assert worker.pid == pid
        await worker.exited.wait()
        assert os.waitstatus_to_exitcode(worker.status or 0) == 7
        await forks.forget(first)
        await forks.forget(worker)


def has_not_ended(pid: int) -> bool:
    try:
        return "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:  # waited for already
        return False


async def test_what_is_followed_outlives_its_supervisor(server: Server) -> None:
    async with server.supervised() as forks:
        first, pid = await left_behind(server, "sleep 600")
        await forks.forget(first)
        followed = await forks.follow("followed", pid)
        followed.close()
    server.reconnect()
    async with server.supervised() as forks:
        workers = {worker.key: worker for worker in await forks.adopt()}
        os.kill(pid, signal.SIGKILL)
        await workers["followed"].exited.wait()
        assert workers["followed"].status == signal.SIGKILL
        await forks.forget(workers["followed"])


async def test_nobody_elses_child_is_followed(server: Server) -> None:
    async with server.supervised() as forks:
        with pytest.raises(Internal, match=f"process {os.getpid()} is not a child"):
            await forks.follow("ours", os.getpid())
        await server.compiled(EXIT)  # it goes on


async def test_a_program_that_is_not_there(server: Server) -> None:
    async with server.supervised() as forks:
        plan = NativeCommand(str(server.directory), ["/nowhere/runc"])
        worker = await forks.spawn("none", plan, (server.null,) * 3)
        assert (await said(worker)).message == "/nowhere/runc: no such file or directory"
        await forks.end(worker)


def test_a_number_that_is_used_again(tmp_path: Path) -> None:
    """What runs now is followed, not what had its number before."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        subprocess.Popen(["sleep", "600"]) as child,
    ):
        server = ForkServer(cast(Engine[object], WasmtimeEngine()), listener, Hello(VERSION))
        server._strays[child.pid] = 7 << 8, 1
        server._follow("followed", child.pid)
        followed = server._children["followed"]
        assert (followed.status, server._strays) == (None, {})
        followed.close()
        child.kill()


async def test_it_says_who_it_is(server: Server) -> None:
    async with server.supervised() as forks:
        hello = await forks.hello()
        assert (hello.version, hello.engine) == (VERSION, engine_reference("wasmtime"))
        assert hello.engine_version == engine_version("wasmtime")


async def test_one_that_retires_leaves_with_its_last_worker(server: Server) -> None:
    pidfd = os.pidfd_open(server.pid)
    async with server.supervised() as forks:
        worker = await server.ready("a", await server.compiled(SPINS))
        await forks.retire()
        with pytest.raises(Unavailable, match="takes no new workers"):
            await forks.spawn("b", app(Path("/nowhere")), (server.null,) * 3)
        worker.send(Start())
        worker.signal(signal.SIGKILL)
        await worker.exited.wait()
        assert worker.status == signal.SIGKILL
        await forks.forget(worker)
        await anyio.wait_readable(pidfd)
    os.close(pidfd)


async def test_another_version_retires_it_and_follows_its_apps(server: Server) -> None:
    """As after an upgrade."""
    async with server.supervised():
        worker = await server.ready("a", await server.compiled(SPINS))
        worker.send(Start())
    pidfd = os.pidfd_open(server.pid)
    newer = connect(server.path)
    newer.settimeout(30)
    for message in (Hello(VERSION + 1), List()):
        send(newer, message)
    said = [receive(newer, decode_event) for _ in range(3)]
    assert [packet and type(packet[0]) for packet in said] == [Hello, Spawned, Listed]
    _close_all(said)
    os.kill(worker.pid, signal.SIGKILL)
    exited = receive(newer, decode_event)
    assert exited is not None
    assert isinstance(exited[0], Exited)
    send(newer, Forget("a"))
    await anyio.wait_readable(pidfd)
    newer.close()
    worker.close()
    os.close(pidfd)


def _close_all(packets: Sequence[tuple[Event, list[int]] | None]) -> None:
    for packet in packets:
        for fd in packet[1] if packet is not None else ():
            os.close(fd)


async def test_exits_that_nobody_asks_for_do_not_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIMD_KEEP_EXITS", "0.2")
    server = Server(tmp_path)
    pidfd = os.pidfd_open(server.pid)
    async with server.supervised():
        worker = await server.ready("a", await server.compiled(EXIT))
        worker.send(Start())
        await worker.exited.wait()
    with anyio.fail_after(60):
        await anyio.wait_readable(pidfd)
    os.waitpid(server.pid, 0)  # noqa: ASYNC222 — it is dead
    os.close(pidfd)
    os.close(server.null)
    worker.close()
