"""Containers from Create to Delete, in memory: each step from each state, and failures and cancellations everywhere."""

import errno
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest

from shimd.api.containerd.task import v3 as api
from shimd.api.containerd.v1.types import Status
from shimd.api.google.protobuf import Any as Packed
from shimd.errors import (
    AlreadyExists,
    Code,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ShimdError,
    Unavailable,
    Unimplemented,
)
from shimd.protocol.worker import Error, Ready
from shimd.supervisor import children
from shimd.supervisor.task import native as native_module
from shimd.supervisor.task.container import Container
from shimd.supervisor.task.service import TaskService
from shimd.supervisor.task.state import State
from shimd.supervisor.workers.fork_client import ForkClient, Worker
from shimd.supervisor.workers.programs import Program
from tests.unit.supervisor.in_memory import Daemon, MemoryCgroup, Suspensions, cancelling, fails, running

pytestmark = pytest.mark.anyio
PROCESS = {"args": ["/app.wasm"], "cwd": "/", "env": []}
NAMESPACES = [{"type": kind} for kind in ("pid", "mount")]
SPEC = {"ociVersion": "1.2.0", "process": PROCESS, "root": {"path": "rootfs"}, "linux": {"namespaces": NAMESPACES}}


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHIMD_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(SPEC))
    return tmp_path


@pytest.fixture
async def daemon(bundle: Path) -> AsyncIterator[Daemon]:
    with anyio.fail_after(60):
        async with running(bundle) as daemon:
            yield daemon


class Tasks:
    """The service, as containerd calls it for one container."""

    def __init__(self, daemon: Daemon, bundle: Path, stdout: str = "") -> None:
        self.daemon, self._bundle, self.stdout = daemon, bundle, stdout
        self.service = TaskService(daemon)

    @property
    def container(self) -> Container:
        return self.service.containers["app"]

    @property
    def cgroup(self) -> MemoryCgroup:
        return self.daemon.cgroups[-1]

    async def create(self) -> None:
        await self.service.create(api.CreateTaskRequest(id="app", bundle=str(self._bundle), stdout=self.stdout))

    async def start(self, exec_id: str = "") -> None:
        await self.service.start(api.StartRequest(id="app", exec_id=exec_id))

    async def add_exec(self, exec_id: str = "sh") -> None:
        spec = Packed(value=json.dumps(PROCESS).encode())
        await self.service.exec(api.ExecProcessRequest(id="app", exec_id=exec_id, spec=spec))

    async def pause(self) -> None:
        await self.service.pause(api.PauseRequest(id="app"))

    async def resume(self) -> None:
        await self.service.resume(api.ResumeRequest(id="app"))

    async def update(self) -> None:
        await self.service.update(api.UpdateTaskRequest(id="app", resources=Packed(value=b"{}")))

    async def kill(self, exec_id: str = "", number: int = signal.SIGKILL) -> None:
        await self.service.kill(api.KillRequest(id="app", exec_id=exec_id, signal=number))

    async def wait(self, exec_id: str = "") -> int:
        return (await self.service.wait(api.WaitRequest(id="app", exec_id=exec_id))).exit_status

    async def delete(self, exec_id: str = "") -> api.DeleteResponse:
        return await self.service.delete(api.DeleteRequest(id="app", exec_id=exec_id))

    async def end(self) -> None:
        """Whatever has become of it: it can be ended, and deleted, and leaves nothing."""
        if "app" in self.service.containers:
            if self.container.init.state not in (State.STOPPED, State.CREATED):
                await self.kill()
                await self.wait()
            await self.delete()
        self.nothing_is_left()

    def nothing_is_left(self) -> None:
        assert self.service.containers == {}
        assert self.daemon.jails == 0
        assert self.daemon.fork_server.living == []
        assert not any(cgroup.made for cgroup in self.daemon.cgroups)
        assert not any(cgroup.frozen for cgroup in self.daemon.cgroups)


@pytest.fixture
def tasks(daemon: Daemon, bundle: Path) -> Tasks:
    return Tasks(daemon, bundle)


async def nothing(_tasks: Tasks) -> None:
    pass


async def by_systemd(tasks: Tasks) -> None:
    tasks.daemon.systemd = True


async def created(tasks: Tasks) -> None:
    await tasks.create()


async def started(tasks: Tasks) -> None:
    await tasks.create()
    await tasks.start()


async def paused(tasks: Tasks) -> None:
    await started(tasks)
    await tasks.pause()


async def stopped(tasks: Tasks) -> None:
    await started(tasks)
    await tasks.kill()
    await tasks.wait()


async def with_exec(tasks: Tasks) -> None:
    await started(tasks)
    await tasks.add_exec()


async def exec_stopped(tasks: Tasks) -> None:
    await with_exec(tasks)
    await tasks.start("sh")
    await tasks.kill("sh")
    await tasks.wait("sh")


Act = Callable[[Tasks], Coroutine[Any, Any, Any]]
#: What is asked for, from the state in which it is legal; what it leads to, and what it publishes.
LEGAL: dict[str, tuple[Act, Act, State, list[str]]] = {
    "create": (nothing, Tasks.create, State.CREATED, ["TaskCreate"]),
    "create by systemd": (by_systemd, Tasks.create, State.CREATED, ["TaskCreate"]),
    "start": (created, Tasks.start, State.RUNNING, ["TaskStart"]),
    "exec": (started, Tasks.add_exec, State.RUNNING, ["TaskExecAdded"]),
    "start exec": (with_exec, lambda tasks: tasks.start("sh"), State.RUNNING, ["TaskExecStarted"]),
    "pause": (started, Tasks.pause, State.PAUSED, ["TaskPaused"]),
    "resume": (paused, Tasks.resume, State.RUNNING, ["TaskResumed"]),
    "update": (started, Tasks.update, State.RUNNING, []),
    "delete exec": (exec_stopped, lambda tasks: tasks.delete("sh"), State.RUNNING, []),
    "delete an exec that never ran": (with_exec, lambda tasks: tasks.delete("sh"), State.RUNNING, []),
}


@pytest.mark.parametrize("name", LEGAL)
async def test_what_is_legal_is_done_and_told(tasks: Tasks, name: str) -> None:
    before, act, state, events = LEGAL[name]
    await before(tasks)
    told = len(tasks.daemon.events)
    await act(tasks)
    assert tasks.container.init.state is state
    assert tasks.daemon.events[told:] == events
    await tasks.end()


@pytest.mark.parametrize("name", LEGAL)
async def test_what_fails_anywhere_has_changed_nothing_and_can_be_asked_for_again(tasks: Tasks, name: str) -> None:
    """At each of the points that it passes, one after the other."""
    before, act, state, events = LEGAL[name]
    for number in range(1, 100):
        tasks.daemon.points.arm(0, None)
        await before(tasks)
        former = tasks.container.init.state if "app" in tasks.service.containers else None
        told = len(tasks.daemon.events)
        tasks.daemon.points.arm(number, fails)
        try:
            await act(tasks)
        except ShimdError:
            assert tasks.daemon.points.reached
            assert former is (tasks.container.init.state if "app" in tasks.service.containers else None)
            assert tasks.daemon.events[told:] == []
            tasks.daemon.points.arm(0, None)
            await act(tasks)
        assert tasks.container.init.state is state
        assert tasks.daemon.events[told:] == events
        done = not tasks.daemon.points.reached
        await tasks.end()
        if done:
            return
    pytest.fail("it never comes to its end")


@pytest.mark.parametrize("name", LEGAL)
async def test_who_is_cancelled_anywhere_leaves_nothing_half_done(tasks: Tasks, name: str) -> None:
    """At each await, and in each thread that one waits for."""
    await _cancel_at_all(tasks, name, by_await=True)
    await _cancel_at_all(tasks, name, by_await=False)


async def _cancel_at_all(tasks: Tasks, name: str, *, by_await: bool) -> None:
    before, act, state, events = LEGAL[name]
    for number in range(1, 100):
        tasks.daemon.points.arm(0, None)
        await before(tasks)
        former = tasks.container.init.state if "app" in tasks.service.containers else None
        told = len(tasks.daemon.events)
        with anyio.CancelScope() as caller:
            if by_await:
                awaited = Suspensions(act(tasks), number, caller.cancel)
                await awaited
            else:
                tasks.daemon.points.arm(number, cancelling(caller))
                await act(tasks)
        reached = awaited.reached if by_await else tasks.daemon.points.reached
        tasks.daemon.points.arm(0, None)
        if caller.cancelled_caught:
            assert former is (tasks.container.init.state if "app" in tasks.service.containers else None)
            assert tasks.daemon.events[told:] == []
            await act(tasks)
        assert tasks.container.init.state is state
        assert tasks.daemon.events[told:] == events
        await tasks.end()
        if not reached:
            return
    pytest.fail("it never comes to its end")


async def paused_with_exec(tasks: Tasks) -> None:
    await with_exec(tasks)
    await tasks.start("sh")
    await tasks.pause()


@pytest.mark.parametrize("before", [created, started, paused, paused_with_exec], ids=lambda one: one.__name__)
async def test_a_kill_is_one_wherever_its_caller_is_cancelled(tasks: Tasks, before: Act) -> None:
    for number in range(1, 100):
        await before(tasks)
        with anyio.CancelScope() as caller:
            killing = Suspensions(tasks.kill(), number, caller.cancel)
            await killing
        assert not tasks.cgroup.frozen
        assert await tasks.wait() == 128 + signal.SIGKILL
        assert tasks.container.init.state is State.STOPPED
        await tasks.end()
        if not killing.reached:
            return
    pytest.fail("it never comes to its end")


@pytest.mark.parametrize("hooks", [{}, {"poststop": "exit 0"}, {"startContainer": "exit 0"}], ids=" ".join)
@pytest.mark.parametrize("before", [created, stopped, exec_stopped], ids=lambda one: one.__name__)
async def test_a_delete_that_was_cancelled_anywhere_is_finished_by_the_next(
    tasks: Tasks, bundle: Path, before: Act, hooks: dict[str, str]
) -> None:
    with_hooks(bundle, **hooks)
    for number in range(1, 100):
        await before(tasks)
        if before is exec_stopped:
            await tasks.kill()
            await tasks.wait()
        told = len(tasks.daemon.events)
        with anyio.CancelScope() as caller:
            deleting = Suspensions(tasks.delete(), number, caller.cancel)
            await deleting
        assert ("app" in tasks.service.containers) is ("TaskDelete" not in tasks.daemon.events[told:])
        if caller.cancelled_caught:
            assert tasks.container.init.state in (State.CREATED, State.STOPPED)
            await tasks.delete()
        assert tasks.daemon.events[told:].count("TaskDelete") == 1
        assert tasks.daemon.events[-1] == "TaskDelete"
        tasks.nothing_is_left()
        if not deleting.reached:
            return
    pytest.fail("it never comes to its end")


async def test_an_exec_that_ends_before_it_can_be_told_to_start(tasks: Tasks) -> None:
    """It is not started, once more neither; and may be deleted at once."""
    await with_exec(tasks)
    told = len(tasks.daemon.events)
    tasks.daemon.fork_server.says.append([Ready(), Error(Code.INTERNAL, "the end")])
    with pytest.raises(Unavailable, match="the worker process is gone"):
        await tasks.start("sh")
    with pytest.raises(FailedPrecondition, match="process sh of container app has been started already"):
        await tasks.start("sh")
    await tasks.delete("sh")
    assert tasks.daemon.events[told:] == ["TaskExit"]
    await tasks.add_exec()
    await tasks.start("sh")
    await tasks.end()


async def test_a_kill_thaws_what_a_pause_that_failed_has_left_frozen(tasks: Tasks) -> None:
    await started(tasks)
    tasks.cgroup.fails.update({"freeze", "thaw"})
    with pytest.raises(OSError, match="Input/output error"):
        await tasks.pause()
    assert (tasks.container.init.state, tasks.cgroup.frozen) == (State.RUNNING, True)
    tasks.cgroup.fails.clear()
    await tasks.kill()
    assert not tasks.cgroup.frozen
    await tasks.wait()
    await tasks.end()


async def test_a_cgroup_that_cannot_be_killed_does_not_keep_the_container(tasks: Tasks, bundle: Path) -> None:
    with_hooks(bundle, startContainer="exit 0")
    await started(tasks)
    tasks.cgroup.fails.add("kill")
    await tasks.kill()
    await tasks.wait()
    await tasks.delete()
    assert tasks.service.containers == {}
    tasks.cgroup.made = False


@pytest.mark.parametrize(
    ("before", "act", "error"),
    [
        (created, Tasks.create, AlreadyExists),
        (started, Tasks.start, FailedPrecondition),
        (created, Tasks.pause, FailedPrecondition),
        (paused, Tasks.pause, FailedPrecondition),
        (started, Tasks.resume, FailedPrecondition),
        (stopped, Tasks.start, FailedPrecondition),
        (stopped, Tasks.pause, FailedPrecondition),
        (stopped, Tasks.resume, FailedPrecondition),
        (stopped, Tasks.add_exec, FailedPrecondition),
        (stopped, Tasks.kill, NotFound),
        (stopped, Tasks.update, FailedPrecondition),
        (started, Tasks.delete, FailedPrecondition),
        (paused, Tasks.delete, FailedPrecondition),
        (created, Tasks.add_exec, FailedPrecondition),
        (paused, Tasks.add_exec, FailedPrecondition),
        (with_exec, Tasks.add_exec, AlreadyExists),
        (exec_stopped, lambda tasks: tasks.start("sh"), FailedPrecondition),
        (with_exec, lambda tasks: tasks.kill("sh"), NotFound),
        (nothing, Tasks.start, NotFound),
        (nothing, Tasks.delete, NotFound),
    ],
)
async def test_what_is_not_legal_is_refused_and_changes_nothing(
    tasks: Tasks, before: Act, act: Act, error: type[ShimdError]
) -> None:
    await before(tasks)
    former = tasks.container.init.state if "app" in tasks.service.containers else None
    told = list(tasks.daemon.events)
    with pytest.raises(error):
        await act(tasks)
    assert former is (tasks.container.init.state if "app" in tasks.service.containers else None)
    assert tasks.daemon.events == told
    await tasks.end()


async def test_a_life(tasks: Tasks) -> None:
    await exec_stopped(tasks)
    await tasks.delete("sh")
    await tasks.kill(number=signal.SIGTERM)
    assert await tasks.wait() == 128 + signal.SIGTERM
    answer = await tasks.delete()
    assert answer.exit_status == 128 + signal.SIGTERM
    assert tasks.daemon.events == [
        "TaskCreate", "TaskStart", "TaskExecAdded", "TaskExecStarted", "TaskExit", "TaskExit", "TaskDelete",
    ]  # fmt: skip
    tasks.nothing_is_left()
    assert not os.listdir(tasks._bundle) or set(os.listdir(tasks._bundle)) == {"config.json"}


async def test_execs_end_before_their_container_as_do_their_events(tasks: Tasks) -> None:
    await with_exec(tasks)
    await tasks.start("sh")
    await tasks.kill()
    await tasks.wait()
    ends = [event for event in tasks.daemon.published if type(event).__name__ == "TaskExit"]
    assert [event.id for event in ends] == ["sh", "app"]  # type: ignore[attr-defined]
    await tasks.end()


async def test_a_thaw_that_fails_leaves_it_paused_and_the_next_one_works(tasks: Tasks) -> None:
    await paused(tasks)
    tasks.cgroup.fails.add("thaw")
    told = list(tasks.daemon.events)
    with pytest.raises(OSError, match="Input/output error"):
        await tasks.resume()
    assert tasks.container.init.state is State.PAUSED
    assert tasks.daemon.events == told
    tasks.cgroup.fails.clear()
    await tasks.resume()
    assert not tasks.cgroup.frozen
    await tasks.end()


async def test_a_kill_thaws_whatever_was_tried_before(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    await paused(tasks)
    tasks.cgroup.fails.add("thaw")
    with pytest.raises(OSError, match="Input/output error"):
        await tasks.resume()
    worker = tasks.container.init.worker
    assert worker is not None
    with monkeypatch.context() as patched:
        patched.setattr(worker, "signal", lambda _number: None)  # what is frozen does not die of it
        with pytest.raises(OSError, match="Input/output error"):
            await tasks.kill()
    tasks.cgroup.fails.clear()
    await tasks.kill()
    await tasks.wait()
    assert not tasks.cgroup.frozen
    await tasks.end()


async def test_a_freeze_that_fails_leaves_it_running(tasks: Tasks) -> None:
    await started(tasks)
    tasks.cgroup.fails.add("freeze")
    with pytest.raises(OSError, match="Input/output error"):
        await tasks.pause()
    assert (tasks.container.init.state, tasks.cgroup.frozen) == (State.RUNNING, False)
    await tasks.end()


async def test_who_is_killed_while_it_is_frozen_is_not_paused(tasks: Tasks) -> None:
    """It could not die, and nobody would thaw it."""
    await started(tasks)
    freeze = tasks.cgroup.freeze

    token = anyio.lowlevel.current_token()

    def kill_then_freeze() -> None:
        anyio.from_thread.run(tasks.kill, token=token)
        freeze()

    tasks.cgroup.freeze = kill_then_freeze  # type: ignore[method-assign]
    with pytest.raises(FailedPrecondition):
        await tasks.pause()
    assert not tasks.cgroup.frozen
    assert await tasks.wait() == 128 + signal.SIGKILL
    await tasks.end()


async def test_a_cgroup_that_cannot_be_removed_does_not_keep_the_container(tasks: Tasks) -> None:
    await stopped(tasks)
    tasks.cgroup.fails.add("remove")
    await tasks.delete()
    assert tasks.service.containers == {}
    tasks.cgroup.made = False


async def test_a_fork_that_fails(tasks: Tasks) -> None:
    tasks.daemon.fork_server.fails = True
    with pytest.raises(ResourceExhausted, match="container app: fork: resource temporarily unavailable"):
        await tasks.create()
    tasks.nothing_is_left()


async def test_what_else_containerd_asks(tasks: Tasks) -> None:
    await with_exec(tasks)
    await tasks.start("sh")
    service, container = tasks.service, tasks.container
    tasks.cgroup.processes = {container.init.pid, container.execs["sh"].pid}
    pids = (await service.pids(api.PidsRequest(id="app"))).processes
    assert {one.pid for one in pids} == tasks.cgroup.processes
    assert [one.info is not None for one in sorted(pids, key=lambda one: one.pid == container.init.pid)] == [
        True,
        False,
    ]
    for exec_id, name in (("", "app"), ("sh", "sh")):
        state = await service.state(api.StateRequest(id="app", exec_id=exec_id))
        assert (state.id, state.exec_id, state.pid) == (name, exec_id, container.process(exec_id).pid)
        assert state.status is Status.RUNNING
    connected = await service.connect(api.ConnectRequest(id="app"))
    assert (connected.shim_pid, connected.task_pid) == (os.getpid(), container.init.pid)
    await service.close_io(api.CloseIoRequest(id="app", exec_id="sh", stdin=True))
    await service.shutdown(api.ShutdownRequest(id="app", now=True))
    with pytest.raises(Unimplemented, match="container app: WebAssembly apps cannot be checkpointed"):
        await service.checkpoint(api.CheckpointTaskRequest(id="app"))
    with pytest.raises(NotFound, match="process nobody of container app does not exist"):
        await service.state(api.StateRequest(id="app", exec_id="nobody"))
    await tasks.end()


async def test_what_makes_no_sense(tasks: Tasks, bundle: Path) -> None:
    with pytest.raises(Unimplemented, match="cannot be restored from a checkpoint"):
        await tasks.service.create(api.CreateTaskRequest(id="app", bundle=str(bundle), checkpoint="/x"))
    await with_exec(tasks)
    for broken in (b"", b"no json", b"[]"):
        with pytest.raises(InvalidArgument, match="exec other: not "):
            spec = Packed(value=broken)
            await tasks.service.exec(api.ExecProcessRequest(id="app", exec_id="other", spec=spec))
    with pytest.raises(FailedPrecondition, match="process sh of container app is not running"):
        await tasks.service.resize_pty(api.ResizePtyRequest(id="app", exec_id="sh", width=1, height=1))
    with pytest.raises(InvalidArgument, match="999"):
        await tasks.kill(number=999)
    await tasks.end()


async def test_one_that_containerd_has_given_up(tasks: Tasks) -> None:
    """It is ended, and containerd itself tells of its deletion."""
    await with_exec(tasks)
    exit = await tasks.service.abandon(tasks.container)
    assert exit.code == 128 + signal.SIGKILL
    assert "TaskDelete" not in tasks.daemon.events
    tasks.nothing_is_left()


def with_hooks(bundle: Path, **hooks: str) -> None:
    """A configuration in which those kinds of hooks are scripts."""
    made = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], "timeout": 10}]
        for kind, script in hooks.items()
    }
    (bundle / "config.json").write_text(json.dumps({**SPEC, "hooks": made}))


async def test_hooks_of_a_life(tasks: Tasks, bundle: Path) -> None:
    """In their order, each with the state on its stdin."""
    write = f"cat >> {bundle}/said; echo >> {bundle}/said"
    with_hooks(bundle, prestart=write, startContainer=write, poststart=write, poststop=write)
    await started(tasks)
    await tasks.end()
    said = [json.loads(line) for line in (bundle / "said").read_text().splitlines()]
    assert [state["status"] for state in said] == ["created", "running", "stopped"]
    assert {state["id"] for state in said} == {"app"}
    assert "pid" not in said[-1]


@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
async def test_a_hook_that_fails_stops_the_container(tasks: Tasks, bundle: Path, kind: str) -> None:
    with_hooks(bundle, **{kind: "echo no luck >&2; exit 3"})
    await tasks.create()
    sentence = rf"container app: hooks\.{kind}\[0\] \(/bin/sh\) failed with exit status 3: no luck"
    with pytest.raises(ShimdError, match=sentence):
        await tasks.start()
    assert await tasks.wait() == 128 + signal.SIGKILL
    await tasks.end()


async def test_a_system_that_has_no_more_for_a_hook_stops_the_container(tasks: Tasks, bundle: Path) -> None:
    with_hooks(bundle, startContainer="exit 0")
    await tasks.create()

    def too_many() -> None:
        raise OSError(24, "Too many open files")

    tasks.daemon.points.arm(1, too_many)
    with pytest.raises(ShimdError, match="container app: too many open files"):
        await tasks.start()
    assert await tasks.wait() == 128 + signal.SIGKILL
    assert "TaskStart" not in tasks.daemon.events
    await tasks.end()


async def test_a_hook_that_takes_too_long(tasks: Tasks, bundle: Path) -> None:
    slow = {"path": "/bin/sleep", "args": ["sleep", "600"], "timeout": 1}
    (bundle / "config.json").write_text(json.dumps({**SPEC, "hooks": {"poststart": [slow]}}))
    await tasks.create()
    with pytest.raises(ShimdError, match=r"hooks\.poststart\[0\] \(/bin/sleep\) took longer than its timeout of 1 s"):
        await tasks.start()
    await tasks.wait()
    await tasks.end()


async def test_the_last_hooks_failure_is_only_told(
    tasks: Tasks, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_hooks(bundle, poststop="exit 1")
    await started(tasks)
    await tasks.end()
    assert "hooks.poststop[0] (/bin/sh) failed with exit status 1" in caplog.text


#: A runtime with runc's command line, as far as it is used here: what it makes sleeps.
RUNTIME = r"""#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        --root|--log|--log-format|--bundle|--process|--console-socket) [ $1 = --log ] && log=$2; shift 2;;
        --pid-file) pidfile=$2; shift 2;;
        --*) shift;;
        create|exec|start|delete) command=$1; shift;;
        *) id=$1; shift;;
    esac
done
[ -e fails.$command ] && { echo '{"level":"error","msg":"no luck with '$id'"}' >"$log"; exit 1; }
[ -e hangs.$command ] && exec sleep 600
case $command in
    create|exec) sleep 600 >/dev/null 2>&1 </dev/null & echo $! >"$pidfile";;
esac
"""


@pytest.fixture
def native(tasks: Tasks, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Tasks:
    return made_native(tasks, bundle, monkeypatch)


def made_native(tasks: Tasks, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Tasks:
    """Whose program is none for an engine."""
    runtime = bundle / "runtime"
    runtime.write_text(RUNTIME)
    runtime.chmod(0o755)
    monkeypatch.setenv("SHIMD_RUNC", str(runtime))
    monkeypatch.setenv("SHIMD_RUNTIME_DIR", str(bundle / "run"))
    monkeypatch.chdir(bundle)
    tasks.daemon.is_native = True
    return tasks


async def test_a_native_containers_life(native: Tasks) -> None:
    await exec_stopped(native)
    assert native.container.native is not None
    await native.delete("sh")
    await native.pause()
    await native.resume()
    await native.end()
    assert native.daemon.fork_server.followed == []
    assert native.daemon.events[-2:] == ["TaskExit", "TaskDelete"]


async def test_what_a_runtime_leaves_is_followed_where_it_ran(native: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be another fork server by then, which has no such child."""
    spawned: list[ForkClient] = []
    spawn, follow = ForkClient.spawn, ForkClient.follow

    async def noting_spawn(forks: ForkClient, *arguments: Any, **named: Any) -> Worker:
        spawned.append(forks)
        monkeypatch.setattr(native.daemon, "forks", None)  # nobody else is asked for
        return await spawn(forks, *arguments, **named)

    async def checking_follow(forks: ForkClient, key: str, pid: int) -> Worker:
        assert spawned[-1] is forks
        return await follow(forks, key, pid)

    monkeypatch.setattr(ForkClient, "spawn", noting_spawn)
    monkeypatch.setattr(ForkClient, "follow", checking_follow)
    await native.create()
    await native.end()


async def test_the_end_of_a_native_containers_children(
    native: Tasks, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are signalled with it, end with it where no pid namespace does that, and keep no exit from being told."""
    (bundle / "config.json").write_text(json.dumps({**SPEC, "linux": {"namespaces": []}}))
    await started(native)
    native.cgroup.fails.add("kill")
    child = await anyio.open_process(["sleep", "600"])
    native.cgroup.processes = {native.container.init.pid, child.pid}
    await native.service.kill(api.KillRequest(id="app", signal=signal.SIGTERM, all=True))
    assert await child.wait() == -signal.SIGTERM
    await native.wait()
    assert "cgroup.kill" in native.daemon.points.passed
    assert "container app: what its process left cannot be killed: [Errno 5] Input/output error" in caplog.text
    await native.end()


@pytest.mark.parametrize("command", ["create", "start", "exec"])
async def test_what_its_runtime_refuses_is_said_in_its_words(native: Tasks, bundle: Path, command: str) -> None:
    before, act, _state, _events = LEGAL["start exec" if command == "exec" else command]
    await before(native)
    (bundle / f"fails.{command}").touch()
    with pytest.raises(ShimdError, match="container app: no luck with app"):
        await act(native)
    (bundle / f"fails.{command}").unlink()
    await act(native)
    await native.end()
    assert native.daemon.fork_server.followed == []


@pytest.mark.parametrize("command", ["create", "start", "exec"])
async def test_a_runtime_that_hangs_is_killed(
    native: Tasks, bundle: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, act, _state, _events = LEGAL["start exec" if command == "exec" else command]
    await before(native)
    (bundle / f"hangs.{command}").touch()
    with monkeypatch.context() as patched:
        patched.setenv("SHIMD_RUNC_SECONDS", "0.3")
        with pytest.raises(Unavailable, match=r"container app: .*has not ended within 0\.3 s, and was killed"):
            await act(native)
    (bundle / f"hangs.{command}").unlink()
    await act(native)
    await native.end()
    assert native.daemon.fork_server.followed == []


async def test_a_runtime_that_hangs_keeps_no_container_from_being_deleted(
    native: Tasks, bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native_module, "_DELETE_LIMIT", 0.3)
    await started(native)
    state = bundle / "run/native/default/app"
    state.mkdir(parents=True)
    (bundle / "hangs.delete").touch()
    await native.end()
    assert "delete --force app has not ended within 0.3 s, and was killed; what it keeps is removed" in caplog.text
    assert not state.exists()


async def test_a_runtime_that_cannot_be_started_for_now_keeps_its_container(
    native: Tasks, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it knows would be left on the node."""
    await started(native)
    (bundle / "run/native/default/app").mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr(children, "run", fails_for_want_of_processes)
        with pytest.raises(OSError, match="Resource temporarily unavailable"):
            await native.end()
    await native.end()


async def fails_for_want_of_processes(*_arguments: object) -> int:
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


async def test_a_runtime_that_is_not_there(native: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIMD_RUNC", "/nowhere/runc")
    with pytest.raises(InvalidArgument, match="there is no /nowhere/runc on this node to run a native program with"):
        await native.create()
    native.nothing_is_left()


async def test_of_two_deletes_one_finds_nothing(tasks: Tasks) -> None:
    await stopped(tasks)
    outcomes: list[str] = []

    async def delete() -> None:
        try:
            await tasks.delete()
            outcomes.append("deleted")
        except NotFound:
            outcomes.append("not found")

    async with anyio.create_task_group() as callers:
        callers.start_soon(delete)
        callers.start_soon(delete)
    assert sorted(outcomes) == ["deleted", "not found"]
    assert tasks.daemon.events.count("TaskDelete") == 1
    tasks.nothing_is_left()


async def test_an_exec_that_is_made_while_its_init_ends_is_refused(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    await started(tasks)
    for name in ("sh", "late"):
        await tasks.add_exec(name)
    init, program = tasks.container.init, tasks.daemon.program

    async def after_its_end(*arguments: Any) -> Program:
        assert init.worker is not None
        os.kill(init.pid, signal.SIGKILL)
        await init.worker.exited.wait()
        await anyio.sleep(0.05)
        assert init.exit is None
        with pytest.raises(FailedPrecondition, match="is not running"):
            await tasks.service.containers["app"]._start_exec(tasks.container.execs["late"])
        return await program(*arguments)

    monkeypatch.setattr(tasks.daemon, "program", after_its_end)
    with pytest.raises(FailedPrecondition, match="is not running"):
        await tasks.start("sh")
    assert await tasks.wait() == 137
    assert tasks.daemon.events[-3:] == ["TaskExecAdded", "TaskExecAdded", "TaskExit"]
    await tasks.end()


def test_a_runtime_that_was_killed_may_be_asked_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIMD_RUNTIME_DIR", str(tmp_path))
    with native_module._scratch() as scratch:
        assert scratch.parent == tmp_path / "scratch"  # which the next daemon empties
        assert isinstance(native_module._failure(scratch, 1), Internal)
        killed = native_module._failure(scratch, -15)
        assert isinstance(killed, Unavailable)
        assert "killed by signal 15" in str(killed)
        (scratch / "log").write_text('{"level": "error", "msg": "no such mount"}\n')
        assert str(native_module._failure(scratch, 1)) == "no such mount"
    assert not scratch.exists()
