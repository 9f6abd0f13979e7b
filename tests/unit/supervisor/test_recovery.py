"""A supervisor that dies at any moment, in memory: the next one goes on with its containers, and answers for it."""

import errno
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import anyio
import pytest

from shimd import rpc
from shimd.errors import Internal, Unavailable
from shimd.supervisor import shortage
from shimd.supervisor.status import report
from shimd.supervisor.task import service
from shimd.supervisor.task.container import Container
from shimd.supervisor.task.service import TaskService
from shimd.supervisor.task.state import State
from tests.unit.supervisor.in_memory import Daemon, UntilDeath, running
from tests.unit.supervisor.test_lifecycle import (
    LEGAL,
    SPEC,
    Act,
    Tasks,
    exec_stopped,
    made_native,
    nothing,
    started,
    stopped,
    with_hooks,
)

pytestmark = pytest.mark.anyio


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


@contextmanager
def replaying() -> Iterator[None]:
    token = rpc._replayed.set(True)
    try:
        yield
    finally:
        rpc._replayed.reset(token)


def recovered(tasks: Tasks, bundle: Path) -> Tasks:
    """As :func:`shimd.supervisor.recovery.recover.recover` does."""
    daemon = tasks.daemon.successor()
    other = Tasks(daemon, bundle, tasks.stdout)
    for record in list(daemon.records.values()):
        other.service.recover(record, daemon)
    daemon.end_unclaimed()
    other.service.undo(all_known=True)
    return other


#: What is asked for, from which state, and all events of the container's life.
STEPS: dict[str, tuple[Act, Act, Act]] = {
    **{name: (before, act, nothing) for name, (before, act, _state, _events) in LEGAL.items()},
    "kill": (started, Tasks.kill, Tasks.wait),
    "kill exec": (exec_stopped, lambda tasks: tasks.kill(), Tasks.wait),
    "delete": (stopped, Tasks.delete, nothing),
}
EVENTS = {
    "create": ["TaskCreate"],
    "create by systemd": ["TaskCreate"],
    "start": ["TaskCreate", "TaskStart"],
    "exec": ["TaskCreate", "TaskStart", "TaskExecAdded"],
    "start exec": ["TaskCreate", "TaskStart", "TaskExecAdded", "TaskExecStarted"],
    "pause": ["TaskCreate", "TaskStart", "TaskPaused"],
    "resume": ["TaskCreate", "TaskStart", "TaskPaused", "TaskResumed"],
    "update": ["TaskCreate", "TaskStart"],
    "delete exec": ["TaskCreate", "TaskStart", "TaskExecAdded", "TaskExecStarted", "TaskExit"],
    "delete an exec that never ran": ["TaskCreate", "TaskStart", "TaskExecAdded"],
    "kill": ["TaskCreate", "TaskStart", "TaskExit"],
    "kill exec": ["TaskCreate", "TaskStart", "TaskExecAdded", "TaskExecStarted", "TaskExit", "TaskExit"],
    "delete": ["TaskCreate", "TaskStart", "TaskExit", "TaskDelete"],
}


@pytest.mark.parametrize("name", STEPS)
async def test_a_death_anywhere_is_a_delay(daemon: Daemon, bundle: Path, name: str) -> None:
    """At each await of each request; and once all is done, but not answered."""
    before, act, after = STEPS[name]
    for number in range(1, 200):
        daemon.published.clear()
        tasks = Tasks(daemon, bundle)
        await before(tasks)
        dead = await UntilDeath(act(tasks), number).run()
        tasks = recovered(tasks, bundle)
        daemon = tasks.daemon
        with replaying():
            await act(tasks)
        await after(tasks)
        assert daemon.events == EVENTS[name], number
        tasks.service.recovered()
        assert not tasks.service._half_made
        await _end(tasks)
        if not dead:
            return
    pytest.fail("it never comes to its end")


@pytest.mark.parametrize("first", range(1, 40, 3))
async def test_streams_of_what_is_made_are_held_to_its_end(daemon: Daemon, bundle: Path, first: int) -> None:
    """Whoever reads them would take the end of a supervisor for the app's: two of them make it in part."""
    out = str(bundle / "out")
    os.mkfifo(out)
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    for second in range(1, 200):
        tasks = Tasks(daemon, bundle, out)
        dead = await UntilDeath(tasks.create(), first).run()
        tasks = held_by_the_next(tasks, bundle)
        if dead:
            with replaying():
                dead = await UntilDeath(tasks.create(), second).run()
            tasks = held_by_the_next(tasks, bundle)
        with replaying():
            await tasks.create()
        tasks.service.recovered()
        daemon = tasks.daemon
        await _end(tasks)
        if not dead:
            break
    else:
        pytest.fail("it never comes to its end")
    os.close(reader)


def held_by_the_next(tasks: Tasks, bundle: Path) -> Tasks:
    """All that was; what is not is dropped soon."""
    held = any(name.startswith("opened:") for name in tasks.daemon.kept)
    tasks = recovered(tasks, bundle)
    if "app" not in tasks.service.containers:
        half_made = tasks.service._half_made.get("app")
        assert held == bool(half_made and half_made.container.init.earlier_streams)
    return tasks


@pytest.mark.parametrize("name", ["create", "start exec"])
async def test_what_ends_its_supervisors_is_not_tried_for_ever(daemon: Daemon, bundle: Path, name: str) -> None:
    """It may be what they end of. Whoever asks anew has it tried anew."""
    before, act, _after = STEPS[name]
    tasks = Tasks(daemon, bundle)
    await before(tasks)
    for number in range(6):
        with replaying() if number else nullcontext():
            assert await UntilDeath(act(tasks), 4).run()
        tasks = recovered(tasks, bundle)
    with replaying(), pytest.raises(Unavailable, match="shimd was restarted 6 times while"):
        await act(tasks)
    await act(tasks)
    tasks.service.recovered()
    await _end(tasks)


async def test_an_undo_is_tried_until_there_is_room(
    daemon: Daemon, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortage, "_PAUSE", 0.001)
    left = [OSError(errno.EMFILE, "no room"), OSError(errno.EMFILE, "no room")]
    usual = Container.undo

    async def undo(self: Container) -> None:
        if left:
            raise left.pop()
        await usual(self)

    monkeypatch.setattr(Container, "undo", undo)
    tasks = Tasks(daemon, bundle)
    assert await UntilDeath(tasks.create(), 4).run()
    tasks = recovered(tasks, bundle)
    with replaying():
        await tasks.create()
    tasks.service.recovered()
    await _end(tasks)


async def test_what_cannot_be_undone_is_not_forgotten(
    daemon: Daemon, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor made anew upon what is left of it: it is another supervisor's to try."""

    async def undo(_self: Container) -> None:
        raise OSError(errno.EBUSY, "it stays")

    tasks = Tasks(daemon, bundle)
    assert await UntilDeath(tasks.create(), 4).run()
    with monkeypatch.context() as patched:
        patched.setattr(Container, "undo", undo)
        tasks = recovered(tasks, bundle)
        with replaying(), pytest.raises(Unavailable, match="something is left"):
            await tasks.create()
    tasks.service.recovered()
    assert [record.processes[0].state for record in tasks.daemon.records.values()] == ["creating"]
    tasks = recovered(tasks, bundle)
    with replaying():
        await tasks.create()
    tasks.service.recovered()
    await _end(tasks)


async def _end(tasks: Tasks) -> None:
    """It can be ended, and nothing is left of it, neither of what its earlier supervisor had begun."""
    if "app" in tasks.service.containers:
        if tasks.container.init.state not in (State.STOPPED, State.CREATED):
            await tasks.kill()
            await tasks.wait()
        await tasks.delete()
    while tasks.daemon.fork_server.living:  # noqa: ASYNC110 — what was unclaimed is about to end
        await anyio.sleep(0.001)
    tasks.nothing_is_left()
    assert all(record.processes[0].state == "deleted" for record in tasks.daemon.records.values())
    assert tasks.daemon.kept == {}
    tasks.daemon.records.clear()


async def test_exits_meanwhile_are_told(daemon: Daemon, bundle: Path) -> None:
    tasks = Tasks(daemon, bundle)
    await started(tasks)
    await tasks.add_exec()
    await tasks.start("sh")
    (sh,) = tasks.container.execs.values()
    dead = tasks.daemon
    tasks = recovered(tasks, bundle)
    assert not dead.alive
    os.kill(sh.pid, 15)
    assert await tasks.wait("sh") == 143
    await tasks.kill()
    assert await tasks.wait() == 137
    assert tasks.daemon.events[-2:] == ["TaskExit", "TaskExit"]
    tasks = recovered(tasks, bundle)
    assert await tasks.wait("sh") == 143
    assert await tasks.wait() == 137
    assert tasks.daemon.events.count("TaskExit") == 2
    await _end(tasks)


async def test_who_was_created_is_started_without_its_fork_server(daemon: Daemon, bundle: Path) -> None:
    """Which had the other end of nothing but what the keeper has, too."""
    tasks = Tasks(daemon, bundle)
    await tasks.create()
    (name,) = (name for name in tasks.daemon.kept if name.startswith("control:"))
    worker = tasks.container.init.worker
    assert worker is not None
    key = worker.key
    worker.close_control()  # an orphan's
    tasks = recovered(tasks, bundle)
    await tasks.start()
    assert name not in tasks.daemon.kept
    with anyio.fail_after(10):
        while key not in tasks.daemon.fork_server.started:  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(0.01)
    await _end(tasks)


async def test_operators_see_what_an_exec_runs(daemon: Daemon, bundle: Path) -> None:
    tasks = Tasks(daemon, bundle)
    await started(tasks)
    await tasks.add_exec()
    (sh,) = tasks.container.execs.values()
    args = sh.spec["args"]
    await tasks.start("sh")
    tasks = recovered(tasks, bundle)
    assert report._task(tasks.container).execs[0].args == args
    await _end(tasks)


async def test_a_service_forgets_what_nobody_asks_for_again(daemon: Daemon, bundle: Path) -> None:
    tasks = Tasks(daemon, bundle)
    await stopped(tasks)
    await tasks.delete()
    tasks = recovered(tasks, bundle)
    assert isinstance(tasks.service, TaskService)
    assert tasks.daemon.records
    tasks.service.recovered()
    assert not tasks.daemon.records


async def test_a_pause_that_nobody_asks_for_again_is_none(daemon: Daemon, bundle: Path) -> None:
    """Whoever asked is gone as well, and what is half frozen would be taken for running."""
    for number in range(1, 50):
        tasks = Tasks(daemon, bundle)
        await started(tasks)
        dead = await UntilDeath(tasks.pause(), number).run()
        tasks = recovered(tasks, bundle)
        daemon = tasks.daemon
        frozen = tasks.container.init.state is State.PAUSED
        with anyio.fail_after(10):
            while daemon.cgroups[-1].frozen != frozen:  # noqa: ASYNC110 — no event tells of it
                await anyio.sleep(0.001)
        await _end(tasks)
        if not dead:
            return


async def test_hooks_after_the_start_are_run_once(daemon: Daemon, bundle: Path) -> None:
    """Whenever the daemon ends."""
    for number in range(1, 200):
        said = bundle / "said"
        said.unlink(missing_ok=True)
        with_hooks(bundle, poststart=f"echo >> {said}")
        tasks = Tasks(daemon, bundle)
        await tasks.create()
        dead = await UntilDeath(tasks.start(), number).run()
        tasks = recovered(tasks, bundle)
        daemon = tasks.daemon
        with replaying():
            await tasks.start()
        assert (said.read_text() if said.exists() else "") in (["\n", ""] if dead else ["\n"]), number
        await _end(tasks)
        if not dead:
            return
    pytest.fail("it never comes to its end")


@pytest.mark.parametrize("was_started", [False, True])
async def test_a_native_runtime_that_cannot_start_it_again(
    daemon: Daemon, bundle: Path, monkeypatch: pytest.MonkeyPatch, was_started: bool
) -> None:
    """It has started it already, or has not: then that is no start."""
    native = made_native(Tasks(daemon, bundle), bundle, monkeypatch)
    await native.create()
    assert native.container.native is not None
    state = native.container.native.state
    state.mkdir(parents=True)
    (bundle / "fails.start").touch()
    process = native.container.init
    process.begun = True
    native.container._commit()
    if not was_started:
        (state / "exec.fifo").touch()
    tasks = recovered(native, bundle)
    with replaying():
        if was_started:
            await tasks.start()
        else:
            with pytest.raises(Internal, match="no luck"):
                await tasks.start()
            assert "TaskStart" not in tasks.daemon.events
            (bundle / "fails.start").unlink()
            await tasks.start()
    assert tasks.daemon.events[-2:] == ["TaskCreate", "TaskStart"]
    await _end(tasks)


async def test_the_last_that_was_deleted_is_forgotten_too(
    daemon: Daemon, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other Delete need come."""
    monkeypatch.setattr(service, "_ANSWERED", 0.001)
    tasks = Tasks(daemon, bundle)
    await stopped(tasks)
    await tasks.delete()
    while daemon.records:  # noqa: ASYNC110 — no event tells of it
        await anyio.sleep(0.001)


async def test_a_runtime_that_a_successor_does_not_find_costs_no_app(
    daemon: Daemon, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = made_native(Tasks(daemon, bundle), bundle, monkeypatch)
    await started(tasks)
    (bundle / "runtime").unlink()
    tasks = recovered(tasks, bundle)
    assert tasks.container.init.state is State.RUNNING
    await _end(tasks)
