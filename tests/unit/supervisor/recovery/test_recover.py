"""The takeover: containers are there before anybody is answered, and a shortage costs nobody anything."""

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from shimd import paths
from shimd.api.containerd.task.v3 import KillRequest, StateRequest
from shimd.linux.pidfd import start_time
from shimd.protocol.journal import EndpointRecord, ProcessRecord, TaskRecord, name_of
from shimd.supervisor import endpoint as of
from shimd.supervisor import shortage
from shimd.supervisor import supervisor as served
from shimd.supervisor.recovery import recover as module
from shimd.supervisor.recovery.connections import Connections
from shimd.supervisor.recovery.journal import Journal
from shimd.supervisor.recovery.recover import recover
from shimd.supervisor.sockets import kept_listener
from shimd.supervisor.supervisor import Supervisor
from shimd.supervisor.task.container import Container
from tests.unit.supervisor.test_supervisor import running

pytestmark = pytest.mark.anyio
SPEC = {"process": {"args": ["/app.wasm"], "cwd": "/", "env": []}, "root": {"path": "rootfs"}}
ENDPOINT = EndpointRecord("wasmtime", "default", "", "")


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNTIME", "STATE", "CACHE"):
        monkeypatch.setenv(f"SHIMD_{name}_DIR", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(SPEC))
    (tmp_path / "shimd.task").touch()
    Journal(paths.journal_dir()).write(ENDPOINT)


@pytest.fixture
def app(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """One that runs, with its record."""
    with subprocess.Popen(["sleep", "600"]) as process:
        Journal(paths.journal_dir()).write(record(tmp_path, process.pid))
        yield process
        process.kill()


def record(bundle: Path, pid: int) -> TaskRecord:
    init = ProcessRecord("", "running", key="key", pid=pid, start=start_time(pid), alone=True)
    return TaskRecord("wasmtime", "default", "", "", "app", str(bundle), processes=[init])


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 — no event tells of it
        await anyio.sleep(0.001)


def names() -> list[str]:
    return sorted(name for name in os.listdir(paths.journal_dir()))


async def pid_of_app(supervisor: Supervisor) -> int:
    (endpoint,) = supervisor.endpoints.values()
    return (await endpoint.service.state(StateRequest(id="app"))).pid


async def test_nobody_is_answered_before_the_containers_are_there(
    app: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who connected while no daemon ran, say."""
    seen: list[bool] = []
    go_on, serve = Container.go_on, Connections.serve

    def gone_on(self: Container) -> None:
        assert not seen
        go_on(self)

    async def begun(self: Connections, *arguments: object) -> None:
        seen.append(True)
        await serve(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Container, "go_on", gone_on)
    monkeypatch.setattr(Connections, "serve", begun)
    async with running() as supervisor:
        await recover(supervisor)
        assert await pid_of_app(supervisor) == app.pid
        await until(lambda: bool(seen))


async def test_what_a_launcher_has_cleaned_up_is_forgotten(app: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    """While neither daemon nor keeper were there. containerd may have another of that name by now."""
    (tmp_path / "shimd.task").unlink()
    async with running() as supervisor:
        await recover(supervisor)
        (endpoint,) = supervisor.endpoints.values()
        assert not endpoint.service.containers
        assert names() == [name_of(ENDPOINT)]
        await until(lambda: app.poll() is not None)


async def test_its_sockets_are_made_later_if_they_cannot_be_now(
    app: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = [True]

    async def listener(*arguments: object) -> object:
        if fails:
            raise OSError(errno.EMFILE, "too many open files")
        return await kept_listener(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(of, "kept_listener", listener)
    monkeypatch.setattr(served, "_PAUSE", 0.001)
    async with running() as supervisor:
        await recover(supervisor)
        assert await pid_of_app(supervisor) == app.pid
        with pytest.raises(OSError, match="too many"):
            await supervisor.endpoint(ENDPOINT)
        fails.clear()
        endpoint = await supervisor.endpoint(ENDPOINT)
        assert endpoint.path.is_socket()


async def test_who_prefers_grpc_keeps_nobody_from_being_served(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as supervisor:
        await recover(supervisor)
        other = EndpointRecord("wasmtime", "other", "", "")
        path = paths.task_socket("wasmtime", "", "other").with_suffix(".grpc")
        (path / "in the way").mkdir(parents=True)
        monkeypatch.setattr(of, "_PAUSE", 0.001)
        endpoint = await supervisor.endpoint(other)
        assert endpoint.path.is_socket()
        (path / "in the way").rmdir()
        path.rmdir()
        await until(path.is_socket)


@pytest.mark.parametrize("what", ["journal", "bundle", "streams"])
async def test_a_shortage_is_waited_out(
    app: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It is neither a record's end nor an app's."""
    monkeypatch.setattr(shortage, "_PAUSE", 0.001)
    left = [errno.EMFILE, errno.ENOMEM, errno.ENFILE]

    def fail() -> None:
        if left:
            raise OSError(left.pop(), "short")

    where, name = {
        "journal": (os, "pread"),
        "bundle": (Path, "read_bytes"),
        "streams": (module.Earlier, "take"),
    }[what]
    whole = getattr(where, name)

    def short(*arguments: object) -> object:
        fail()
        return whole(*arguments)

    async with running() as supervisor:
        monkeypatch.setattr(where, name, short)
        before = names()
        await recover(supervisor)
        assert not left
        assert names() == before
        assert await pid_of_app(supervisor) == app.pid
        assert app.poll() is None
        await supervisor.endpoints.popitem()[1].service.kill(KillRequest(id="app", signal=9))
    app.wait(30)


async def test_nothing_is_ended_while_a_record_cannot_be_read(
    app: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker is nobody else's."""

    def broken(*_arguments: object) -> bytes:
        raise OSError(errno.EIO, "input/output error")

    async def end_unclaimed(_self: object) -> None:
        raise AssertionError

    before = names()
    async with running() as supervisor:
        monkeypatch.setattr(type(supervisor.fork_servers), "end_unclaimed", end_unclaimed)
        monkeypatch.setattr(os, "pread", broken)
        await recover(supervisor)
        await anyio.wait_all_tasks_blocked()
    assert names() == before
    assert app.poll() is None


async def test_one_that_cannot_be_recovered_ends_with_all_its_processes(
    app: "subprocess.Popen[bytes]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were claimed before the error, too."""

    def broken(*_arguments: object) -> None:
        raise RuntimeError("a bug")

    with subprocess.Popen(["sleep", "600"]) as exec:  # noqa: ASYNC220
        task = record(tmp_path, app.pid)
        other = ProcessRecord("sh", "running", key="other", pid=exec.pid, start=start_time(exec.pid))
        Journal(paths.journal_dir()).write(replace(task, processes=[*task.processes, other]))
        monkeypatch.setattr(Container, "go_on", broken)
        async with running() as supervisor:
            await recover(supervisor)
            (endpoint,) = supervisor.endpoints.values()
            assert not endpoint.service.containers
            await until(lambda: None not in (app.poll(), exec.poll()))
        assert names() == [name for name in names() if name.startswith("endpoint-")]


async def test_what_was_half_made_is_removed_once_its_worker_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    gone = anyio.Event()

    async def end_unclaimed(_self: object) -> None:
        await gone.wait()
        done.append("ended")

    async def undo(_self: Container) -> None:
        done.append("undone")

    init = ProcessRecord("", "creating", begun=True)
    task = TaskRecord("wasmtime", "default", "", "", "half", str(tmp_path), processes=[init])
    Journal(paths.journal_dir()).write(task)
    monkeypatch.setattr(Container, "undo", undo)
    async with running() as supervisor:
        monkeypatch.setattr(type(supervisor.fork_servers), "end_unclaimed", end_unclaimed)
        await recover(supervisor)
        assert supervisor.is_needed
        gone.set()
        await until(lambda: len(done) == 2)
        await anyio.wait_all_tasks_blocked()
        assert supervisor.is_needed  # it may be asked for again
        for endpoint in supervisor.endpoints.values():
            endpoint.service.recovered()
        assert not supervisor.is_needed
    assert done == ["ended", "undone"]
