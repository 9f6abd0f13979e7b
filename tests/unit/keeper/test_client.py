"""The supervisor's end, with the real program."""

import errno
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import anyio
import anyio.lowlevel
import pytest

from shimd import keeper as installed
from shimd import paths
from shimd.errors import AlreadyExists, Unavailable
from shimd.linux import fifo
from shimd.linux.pidfd import start_time
from shimd.protocol.keeper import VERSION, Kind
from shimd.supervisor.background import Background
from shimd.supervisor.recovery import alone, keeper_link, next_life
from shimd.supervisor.recovery import keeper as module
from shimd.supervisor.recovery.keeper import Keeper
from shimd.supervisor.workers import watchdog
from tests.unit.keeper.rig import PATIENCE, Supervisor, alive
from tests.unit.keeper.test_names import at_its_end
from tests.unit.short import no_descriptors

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(installed.program() is None, reason="no C compiler was here"),
]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHIMD_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(module, "restart_command", list)
    return tmp_path


@asynccontextmanager
async def supervisor() -> AsyncIterator[Keeper]:
    """One that ends with the block, without a word."""
    with anyio.fail_after(3 * PATIENCE):
        async with anyio.create_task_group() as tasks:
            keeper = await Keeper.open(Background(tasks))
            await anyio.lowlevel.checkpoint()  # it hears
            yield keeper
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def last_supervisor() -> AsyncIterator[Keeper]:
    """The same, with which the keeper ends."""
    async with supervisor() as keeper:
        try:
            yield keeper
        finally:
            pid = pid_of(keeper)
            keeper.quit()
            await until(lambda: not alive(pid))


async def next_to() -> Supervisor:
    """Another, as soon as the keeper has seen that the last one has gone."""
    with anyio.fail_after(PATIENCE):
        while True:
            another = Supervisor(paths.keeper_socket(), hello=False)
            if another.hello().kind is Kind.HELLO:
                return another
            another.sock.close()
            await anyio.sleep(0.005)


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(0.005)


def pid_of(keeper: Keeper) -> int:
    assert keeper._link is not None
    return keeper._link.pid


def starts(keeper: Keeper, pid: int) -> list[int]:
    """Of the processes that had a pid and have ended."""
    return [start for one, start in keeper._exits.all() if one == pid]


async def exited(keeper: Keeper, pid: int) -> tuple[int, int]:
    await until(lambda: starts(keeper, pid))
    found = keeper.exit_of(pid, starts(keeper, pid)[0])
    assert found is not None
    return found


def connected(keeper: Keeper) -> bool:
    return keeper._link is not None and keeper._connected.is_set()


def ended(sock: socket.socket) -> bool:
    with suppress(BlockingIOError):
        return sock.recv(1) == b""
    return False


@pytest.fixture
def ends() -> "list[socket.socket]":
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return [ours, theirs]


async def test_what_is_kept_is_there_for_the_next_one(ends: "list[socket.socket]") -> None:
    ours, theirs = ends
    async with supervisor() as first:
        assert first.available
        assert first.kept == {}
        first.keep("connection:1", [theirs.fileno(), 0])
        first.keep("dropped", [0])
        first.drop("dropped")
        first.drop("never there")
    theirs.close()
    async with last_supervisor() as second:
        assert list(second.kept) == ["connection:1"]
        fds = second.take("connection:1")
        assert fds is not None and len(fds) == 2
        assert not any(map(os.get_inheritable, fds))
        assert second.take("connection:1") is None
        assert not ended(ours)
        second.drop("connection:1")
        for fd in fds:
            os.close(fd)
        await until(lambda: ended(ours))
    ours.close()
    assert not paths.keeper_socket().exists()


async def test_what_nobody_takes_is_dropped(ends: "list[socket.socket]") -> None:
    ours, theirs = ends
    async with supervisor() as first:
        first.keep("a", [theirs.fileno()])
    theirs.close()
    async with last_supervisor() as second:
        second.drop_untaken()
        await until(lambda: ended(ours))
    ours.close()


async def test_more_than_the_socket_holds_is_kept_all_the_same() -> None:
    names = [f"connection:{number}" for number in range(3000)]
    async with supervisor() as first:
        os.kill(pid_of(first), signal.SIGSTOP)
        for name in names:
            first.keep(name, [0])
        for name in names[::2]:
            first.drop(name)
        assert first._unsent
        os.kill(pid_of(first), signal.SIGCONT)
        await until(lambda: not first._unsent)
    async with last_supervisor() as second:
        assert sorted(second.kept) == sorted(names[1::2])


async def test_what_is_to_be_kept_soon_is_told_of_if_it_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SOON", 0.05)
    async with supervisor() as first:
        told: list[str] = []
        monkeypatch.setattr(first, "_tell", lambda _link, name: told.append(name))
        first.keep_soon("gone", [0])
        first.drop("gone")
        for name in ("a", "b", "now", "gone now"):
            first.keep_soon(name, [0])
        first.keep("now", [0])
        first.keep("gone now", [0])
        first.drop("gone now")
        assert told == ["now", "gone now", "gone now"]
        await until(lambda: len(told) == 5)
        assert sorted(told[3:]) == ["a", "b"]
        first.keep_soon("a", [1])  # it has another already
        first.drop("b")
        assert told[5:] == ["a", "b"]
        monkeypatch.delattr(first, "_tell")
        first._unsent = dict.fromkeys(first._held)
        first._flush()
    async with last_supervisor() as second:
        assert sorted(second.kept) == ["a", "now"]


async def test_who_ends_tells_of_what_was_to_be_kept_soon() -> None:
    async with supervisor() as first:
        first.keep_soon("a", [0])
        await first.told()
    async with last_supervisor() as second:
        assert list(second.kept) == ["a"]


async def test_the_next_keeper_is_told_of_what_was_to_be_kept_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SOON", 60.0)
    async with supervisor() as first:
        first.keep_soon("a", [0])
        first.keep_soon("b", [0])
        os.kill(pid := pid_of(first), signal.SIGKILL)
        await until(lambda: first.pid not in (0, pid) and connected(first))
        first.drop("b")  # which is known now
        await first.told()
    async with last_supervisor() as second:
        assert list(second.kept) == ["a"]


async def test_keep_does_not_raise() -> None:
    async with supervisor() as first:
        reading, writing = os.pipe()
        os.close(reading)
        os.close(writing)
        first.keep("closed", [reading])
        first.keep("n" * 256, [0])
        first.keep("kept", [0])
    async with last_supervisor() as second:
        assert list(second.kept) == ["kept"]


async def test_what_there_was_no_room_for_is_kept_later(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(module, "_PAUSE", 0.01)
    async with supervisor() as first:
        pid = pid_of(first)
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")), hard))
        first.keep("a", [0])
        with pytest.raises(OSError, match="Too many open files"):
            await first.spawn(["/bin/true"], {}, {})
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (100, hard))
        await anyio.sleep(0.2)
    async with last_supervisor() as second:
        assert list(second.kept) == ["a"]


async def test_a_child_is_the_keepers_and_outlives_us(directory: Path) -> None:
    async with supervisor() as first:
        pid = await first.spawn(["/bin/sh", "-c", "read line; exit 5"], {}, {0: (pipe := os.pipe())[0]})
        os.close(pipe[0])
        assert parent_of(pid) == pid_of(first)
        first.keep("stdin", [pipe[1]])
        start = start_time(pid)
    os.write(pipe[1], b"go\n")
    os.close(pipe[1])
    async with last_supervisor() as second:
        await until(lambda: second.exit_of(pid, start))
        status, at = await exited(second, pid)
        assert (status, second.exit_of(pid, start)) == (5 << 8, (status, at))
        assert second.exit_of(pid, start + 1) is None
        second.forget_exit(pid, start)
        assert second.exit_of(pid, start) is None
        second.drop_untaken()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_a_child_that_cannot_be_started_says_why() -> None:
    async with last_supervisor() as keeper:
        with pytest.raises(FileNotFoundError):
            await keeper.spawn(["/no/such/program"], {}, {})


async def test_a_keeper_that_is_killed_is_replaced_and_has_all(ends: "list[socket.socket]") -> None:
    ours, theirs = ends
    async with supervisor() as first:
        first.keep("connection:1", [theirs.fileno()])
        first.keep("other", [0])
        child = await first.spawn(["/bin/sleep", "60"], {}, {})
        old = pid_of(first)
        os.kill(old, signal.SIGKILL)
        first.drop("other")
        first.keep("meanwhile", [0])
        await until(lambda: connected(first) and pid_of(first) != old)
        assert not alive(old)
        os.kill(child, signal.SIGKILL)
        await exited(first, await first.spawn(["/bin/true"], {}, {}))
    theirs.close()
    async with last_supervisor() as second:
        assert sorted(second.kept) == ["connection:1", "meanwhile"]
        assert not ended(ours)
    ours.close()


async def test_a_name_that_has_no_descriptors_is_dropped() -> None:
    """Whoever waits at the other end learns that nobody is there."""
    async with supervisor() as first:
        first.keep("first", [0])
    with await next_to() as another:
        another.say(Kind.KEEP, name="connection:1")
        assert another.names() == {"first", "connection:1"}
    async with supervisor() as keeper:
        assert list(keeper.kept) == ["first"]
        keeper_link.close_all(keeper.take("first") or [])
        await keeper.told()
    with await next_to() as another:
        assert another.names() == {"first"}
    async with last_supervisor() as last:
        last.drop_untaken()


async def test_exits_that_nobody_wants_are_not_told_again() -> None:
    async with supervisor() as keeper:
        keeper.keep("a", [0])
        pids = wanted, forgotten, unwanted, later = [await keeper.spawn(["/bin/false"], {}, {}) for _ in range(4)]
        for pid in (wanted, forgotten, unwanted):
            await exited(keeper, pid)
        asked = []

        def wants(pid: int, _start: int) -> bool:
            asked.append(pid)
            return pid in (wanted, forgotten)

        keeper.keep_exits(wants)
        await until(lambda: later in asked)
        assert starts(keeper, wanted)
        keeper.forget_exit(forgotten, starts(keeper, forgotten)[0])
        await keeper.spawn(["/bin/true"], {}, {})  # what was said before has been heard
    with await next_to() as another:
        assert {packet.numbers[0] for packet in another.list()[1]} & set(pids) == {wanted}
    async with last_supervisor() as last:
        last.drop_untaken()


async def test_an_exit_of_which_not_all_is_known_is_forgotten_too() -> None:
    """Else it would be every later process's that gets its number."""
    async with last_supervisor() as keeper:
        keeper._exits.note(7, 0, 9, 1)
        assert keeper.exit_of(7, 1234) == (9, 1)
        keeper.forget_exit(7, 1234)
        assert keeper.exit_of(7, 5678) is None


async def test_a_keeper_that_was_started_with_the_last_descriptor_is_no_zombie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There was none to wait for it by."""
    monkeypatch.setattr(alone, "_PAUSE", 0.01)
    opened, errors = os.pidfd_open, [errno.EMFILE]

    def pidfd_open(pid: int) -> int:
        if errors:
            raise OSError(errors.pop(), "short")
        return opened(pid)

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    async with last_supervisor() as first:
        pid = pid_of(first)
        assert not errors
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not Path(f"/proc/{pid}").exists())
        await until(lambda: connected(first))


async def test_who_leaves_has_told_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is more than the socket takes, and the keeper was stopped for a while."""
    monkeypatch.setattr(module, "_LAST_WORD", PATIENCE)
    async with supervisor() as first:
        stopped = pid_of(first)
        os.kill(stopped, signal.SIGSTOP)
        names = {f"connection:{n}" for n in range(2000)}
        for name in names:
            first.keep(name, [0])
        assert first._unsent
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.told)
            await anyio.wait_all_tasks_blocked()
            os.kill(stopped, signal.SIGCONT)
        assert not first._unsent
    async with last_supervisor() as second:
        assert set(second.kept) == names


async def test_who_leaves_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_LAST_WORD", 0.05)
    async with supervisor() as first:
        os.kill(pid_of(first), signal.SIGSTOP)
        for n in range(2000):
            first.keep(f"connection:{n}", [0])
        await first.told()
        os.kill(pid_of(first), signal.SIGCONT)
    assert "the keeper could not be told of" in caplog.text
    async with last_supervisor():
        pass


async def test_what_is_taken_is_kept_anew_too() -> None:
    async with supervisor() as first:
        first.keep("taken", [0])
        first.keep("untaken", [0])
    async with supervisor() as second:
        fds = second.take("taken") or []
        os.kill(killed := pid_of(second), signal.SIGKILL)
        await until(lambda: connected(second) and pid_of(second) != killed)
        keeper_link.close_all(fds)
        keeper_link.close_all(second.kept.pop("untaken"))
    async with last_supervisor() as third:
        assert sorted(third.kept) == ["taken", "untaken"]


async def test_a_stopped_keeper_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_link, "_PATIENCE", 0.05)
    async with supervisor() as first:
        first.keep("a", [0])
        os.kill(pid_of(first), signal.SIGSTOP)
    async with last_supervisor() as second:
        assert list(second.kept) == ["a"]


@pytest.mark.parametrize("dies", [True, False], ids=["killed", "immortal"])
async def test_one_that_stands_still_is_noticed(monkeypatch: pytest.MonkeyPatch, dies: bool) -> None:
    """Though nobody wants a child of it: what is kept meanwhile would be lost with this daemon."""
    monkeypatch.setattr(watchdog, "TURN", 0.1)
    for name in ("_PATIENCE", "_PAUSE"):
        monkeypatch.setattr(module, name, 0.05)
    monkeypatch.setattr(keeper_link, "_PATIENCE", 0.5)
    async with last_supervisor() as keeper:
        stopped = pid_of(keeper)
        for n in range(2):
            os.kill(stopped, signal.SIGSTOP)
            keeper.keep(f"{n}", [0])
            await until(lambda: not is_stopped(stopped))
            await keeper.told()
        others = SimpleNamespace(SIGCONT=signal.SIGWINCH, SIGKILL=signal.SIGKILL if dies else signal.SIGWINCH)
        monkeypatch.setattr(module, "signal", others)
        monkeypatch.setattr(keeper_link, "signal", others)
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises(ConnectionResetError):
            await keeper.spawn(["/bin/true"], {}, {})
        await until(lambda: connected(keeper))
        assert pid_of(keeper) != stopped
        if not dies:
            os.kill(stopped, signal.SIGKILL)
            await until(lambda: not alive(stopped))


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def open_one(tasks: Background, opened: list[Keeper]) -> None:
    opened.append(await Keeper.open(tasks))


async def test_who_is_short_of_something_at_its_start_takes_all_over_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not go on without, and drop what it has not seen."""
    monkeypatch.setattr(keeper_link, "_PREDECESSOR", 0.0)
    async with supervisor() as first:
        first.keep("many", [0, 0, 0])
        first.keep("one", [0])
    errors = [errno.ENOMEM, errno.EMFILE]

    async def reach(path: Path, command: Sequence[int]) -> keeper_link.Link | None:
        if path == paths.keeper_socket() and errors:
            raise OSError(errors.pop(), "short")
        return await keeper_link.reach(path, command)

    monkeypatch.setattr(module, "reach", reach)
    async with supervisor() as second:
        assert sorted(second.kept) == ["many", "one"]
    for left in range(4):
        opened: list[Keeper] = []
        async with anyio.create_task_group() as tasks:
            with no_descriptors(left):
                tasks.start_soon(open_one, Background(tasks), opened)
                await anyio.sleep(0.05)
            await until(lambda opened=opened: opened)  # type: ignore[misc]
            assert {name: len(fds) for name, fds in opened[0].kept.items()} == {"many": 3, "one": 1}
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    async with last_supervisor():
        pass


async def test_who_cannot_say_yet_what_starts_it_again_says_so_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that nothing has to: nobody would start the next daemon."""
    failing = True

    def restart_command() -> list[int]:
        if failing:
            raise OSError(errno.ENOMEM, "short")
        return [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]

    monkeypatch.setattr(module, "restart_command", restart_command)
    monkeypatch.setattr(module, "_PAUSE", 0.01)
    async with last_supervisor() as keeper:
        assert not connected(keeper)
        failing = False
        await until(lambda: connected(keeper))
    with no_descriptors(1), pytest.raises(OSError, match="Too many open files"):
        next_life.restart_command()


async def test_who_ends_each_connection_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_link, "_PREDECESSOR", 0.1)
    with listening() as listener:
        connections = 0

        async def ends_each() -> None:
            nonlocal connections
            while True:
                await anyio.wait_readable(listener)
                listener.accept()[0].close()
                connections += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ends_each)
            with pytest.raises((Unavailable, OSError)):
                await keeper_link.reach(paths.keeper_socket(), ())
            tasks.cancel_scope.cancel()
    assert connections < 20


async def test_who_accepts_no_connection_does_not_stand_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_link, "_PREDECESSOR", 0.1)
    with listening(0), keeper_link.connect(paths.keeper_socket()) or pytest.fail(), pytest.raises(BlockingIOError):
        await keeper_link.reach(paths.keeper_socket(), ())


async def test_one_that_the_kernel_does_not_let_die_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_link, "_PATIENCE", 0.05)
    monkeypatch.setattr(keeper_link, "_signal", lambda pid, number: None)
    async with supervisor() as first:
        first.keep("a", [0])
        os.kill(old := pid_of(first), signal.SIGSTOP)
    async with last_supervisor() as second:
        assert pid_of(second) != old
    os.kill(old, signal.SIGKILL)
    await until(lambda: os.waitpid(old, os.WNOHANG)[0])


@contextmanager
def listening(backlog: int = 8) -> Iterator[socket.socket]:
    """Somebody where the keeper should be."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(paths.keeper_socket()))
        listener.listen(backlog)
        listener.setblocking(False)
        yield listener


async def test_a_second_supervisor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_link, "_PREDECESSOR", 0.05)
    async with last_supervisor() as first:
        with pytest.raises(AlreadyExists):
            await Keeper.open(first._tasks)
        first.keep("a", [0])
        assert connected(first)


def other_keeper(directory: Path, version: int) -> Path:
    """A keeper that is another program, and less patient."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    source = Path(installed.__file__).parent
    header = (source / "protocol.h").read_text().replace(f"PROTOCOL = {VERSION},", f"PROTOCOL = {version},")
    (directory / "protocol.h").write_text(header)
    code = (source / "keeper.c").read_text()
    assert "HEARD = 10000" in code
    (directory / "keeper.c").write_text(code.replace("HEARD = 10000", "HEARD = 300"))
    subprocess.run([compiler, "-std=gnu99", "-o", directory / "shimd-keeper", directory / "keeper.c"], check=True)
    return directory / "shimd-keeper"


@pytest.fixture
def other_version(tmp_path: Path) -> Path:
    """A keeper of the next version."""
    return other_keeper(tmp_path, VERSION + 1)


@pytest.mark.parametrize("version", [VERSION, VERSION + 1])
async def test_a_parent_of_another_release_is_replaced(
    tmp_path: Path, version: int, ends: "list[socket.socket]"
) -> None:
    ours, theirs = ends
    sock, old = keeper_link.launch(paths.keeper_socket(), other_keeper(tmp_path, version))
    with Supervisor(paths.keeper_socket(), hello=False) as its_own:
        assert its_own.hello(version=version).numbers[0] == version
        its_own.say(Kind.KEEP, name="connection:1", fds=[theirs.fileno()])
        child, _start = its_own.run("exec sleep 60")
        ended_before, started_before = its_own.run("exit 3")
        its_own.exit_of(ended_before)
    sock.close()
    theirs.close()
    async with last_supervisor() as keeper:
        assert pid_of(keeper) != old
        assert list(keeper.kept) == ["connection:1"]
        assert keeper.exit_of(ended_before, started_before) is not None
        assert parent_of(child) == old  # which waits for it
        with Supervisor(paths.keeper_socket(), hello=False) as probe:
            assert probe.hello().kind is Kind.FAILED
        keeper.drop_untaken()
        await until(lambda: ended(ours))
        os.kill(child, signal.SIGKILL)
        await until(lambda: os.waitpid(old, os.WNOHANG)[0])
        await until(lambda: not paths.old_keeper_sockets())
    ours.close()


@pytest.mark.parametrize("version", [VERSION, VERSION + 1])
async def test_exits_of_a_replaced_one_are_told(tmp_path: Path, version: int) -> None:
    """While a supervisor is there, and to the next one if none is, before the keeper ends."""
    sock, old = keeper_link.launch(paths.keeper_socket(), other_keeper(tmp_path, version))
    with Supervisor(paths.keeper_socket(), hello=False) as its_own:
        its_own.hello(version=version)
        first, first_start = its_own.run("exec sleep 60")
        second, second_start = its_own.run("exec sleep 60")
    sock.close()
    async with supervisor() as keeper:
        os.kill(first, signal.SIGKILL)
        await until(lambda: keeper.exit_of(first, first_start))
        assert keeper.exit_of(second, second_start) is None
    os.kill(second, signal.SIGTERM)
    await anyio.sleep(0.5)
    assert alive(old)
    async with last_supervisor() as keeper:
        found = keeper.exit_of(second, second_start)
        assert found is not None and found[0] == signal.SIGTERM
        await until(lambda: os.waitpid(old, os.WNOHANG)[0])


async def test_several_that_were_replaced_live_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are found by each supervisor, and let go when nothing is left to do."""
    pids, children, current = [], [], Path(installed.program() or "")
    for number in range(3):
        (directory := tmp_path / f"release{number}").mkdir()
        program = directory / "shimd-keeper"
        program.write_bytes(current.read_bytes() + b"%d" % number)
        program.chmod(0o755)
        monkeypatch.setattr(installed, "program", lambda found=program: found)
        async with supervisor() as keeper:
            assert list(keeper.kept) == ["a"][: min(number, 1)]
            keeper.keep("a", [0])
            children.append(await keeper.spawn(["/bin/sleep", "60"], {}, {}))
            pids.append(pid_of(keeper))
    assert len(set(pids)) == 3
    assert [parent_of(child) for child in children] == pids
    async with last_supervisor() as keeper:
        assert pid_of(keeper) == pids[2]
        assert len(paths.old_keeper_sockets()) == 2
        for child in children:
            os.kill(child, signal.SIGKILL)
        await until(lambda: all(starts(keeper, child) for child in children))
    await until(lambda: not any(map(alive, pids)))


async def test_an_upgrade_that_was_not_finished_is(other_version: Path) -> None:
    """The supervisor was killed when the new keeper was there, and had not all of the old one's yet."""
    sock, old = keeper_link.launch(paths.keeper_socket(), other_version)
    with Supervisor(paths.keeper_socket(), hello=False) as its_own:
        its_own.hello(version=VERSION + 1)
        its_own.say(Kind.KEEP, name="a", fds=[0])
        its_own.say(Kind.KEEP, name="b", fds=[0])
        its_own.names()
    sock.close()
    paths.keeper_socket().rename(paths.old_keeper_socket(old))
    async with supervisor() as unfinished:
        unfinished.drop("b")
    async with last_supervisor() as keeper:
        assert list(keeper.kept) == ["a"]
    await until(lambda: os.waitpid(old, os.WNOHANG)[0])


async def test_without_a_program_children_are_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installed, "program", lambda: None)
    async with supervisor() as keeper:
        assert not keeper.available
        keeper.keep("a", [0])
        keeper.drop("a")
        with open(tmp_path / "out", "w") as out:  # noqa: ASYNC230
            script = "echo here >&7; ls /proc/$$/fd >&7; exit 9"
            pid = await keeper.spawn(["/bin/sh", "-c", script], {"PATH": os.defpath}, {7: out.fileno()})
        assert (os.getsid(pid), parent_of(pid)) == (pid, os.getpid())
        status, _ = await exited(keeper, pid)
        assert status == 9 << 8
        here, *descriptors = (tmp_path / "out").read_text().split()
        # From 10 on are the shell's own, and what who runs the tests has left open.
        assert (here, {fd for fd in descriptors if len(fd) == 1}) == ("here", {"0", "1", "2", "7"})
        with pytest.raises(FileNotFoundError):
            await keeper.spawn(["/no/such/program"], {}, {})
        keeper.quit()
    assert not paths.keeper_socket().exists()


async def test_one_that_does_not_start_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "shimd-keeper"
    program.write_text("not a program")
    monkeypatch.setattr(installed, "program", lambda: program)
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    async with last_supervisor() as keeper:
        keeper.keep("a", [0])
        pid = await keeper.spawn(["/bin/true"], {}, {})
        assert parent_of(pid) == os.getpid()
        real = Path(sys.executable).with_name("shimd-keeper")
        shutil.copy(real, tmp_path / "new")
        (tmp_path / "new").rename(program)
        await until(lambda: connected(keeper) and not keeper._unsent)
        await exited(keeper, pid)


async def test_the_supervisor_is_started_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As it was called, with its environment but for what was its starter's."""
    script = tmp_path / "supervisor"
    script.write_text("import os, sys\nprint(*sys.argv[1:], os.environ.get('NOTIFY_SOCKET'), flush=True)\ninput()")
    monkeypatch.setattr(sys, "argv", [os.path.relpath(script), "serve"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-I", os.path.relpath(script), "serve"])
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/launcher")
    monkeypatch.delenv("SYSTEMD_EXEC_PID", raising=False)
    monkeypatch.setattr(module, "restart_command", lambda: redirected(next_life.restart_command(), tmp_path / "out"))
    async with supervisor():
        pass
    await until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").read_text() == "serve None\n")
    monkeypatch.setattr(module, "restart_command", list)
    async with last_supervisor():
        pass


def redirected(command: list[int], path: Path) -> list[int]:
    """With its output in a file."""
    with open(path, "w") as out:
        os.dup2(out.fileno(), command[2])
    return command


@pytest.mark.parametrize(
    ("variables", "manager"),
    [
        ({}, False),
        ({"SYSTEMD_EXEC_PID": "1", "NOTIFY_SOCKET": "/run/systemd/notify"}, False),  # containerd's
        ({"SYSTEMD_EXEC_PID": "SELF"}, True),
        ({"NOTIFY_SOCKET": "/run/systemd/notify"}, True),
        ({"INVOCATION_ID": "1", "NOTIFY_SOCKET": "@launcher"}, False),
    ],
)
def test_systemd_starts_its_own_again(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], manager: bool
) -> None:
    for name in ("SYSTEMD_EXEC_PID", "NOTIFY_SOCKET", "INVOCATION_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("SELF", str(os.getpid())))
    assert next_life.has_service_manager() == manager


async def test_a_keeper_without_room_is_told_again_what_starts_us(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also one whose last supervisor took the command back, as it does when it ends for good."""
    monkeypatch.setattr(module, "_PAUSE", 0.01)
    async with supervisor() as first:
        pid = pid_of(first)
        first.keep("a", [0])  # so that it stays
        await first.spawn(["/bin/true"], {}, {})  # what was said before has been heard
    few = len(os.listdir(f"/proc/{pid}/fd"))
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, before[1]))
    monkeypatch.setattr(module, "restart_command", lambda: [os.open(os.devnull, os.O_RDONLY) for _ in range(4)])
    async with last_supervisor() as second:
        assert second._link is not None
        assert not second._link.complete
        await anyio.sleep(0.05)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        await until(lambda: second._link is not None and second._link.complete)


async def test_what_is_kept_waits_for_descriptors(ends: "list[socket.socket]", monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that begins and has none left: what it would not hear of would be lost."""
    async with supervisor() as first:
        first.keep("connection:1", [ends[1].fileno()])
    real, short = keeper_link.connect, 3

    def connect(path: Path) -> socket.socket | None:
        nonlocal short
        short -= 1
        if short > 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path)

    monkeypatch.setattr(module, "_PAUSE", 0.01)
    monkeypatch.setattr(keeper_link, "connect", connect)
    async with last_supervisor() as second:
        fds = second.take("connection:1")
        assert fds is not None
        assert not ended(ends[0])
        keeper_link.close_all(fds)
    for end in ends:
        end.close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A FIFO."""
    os.mkfifo(tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def found(out: Path) -> Iterator[int]:
    """The descriptor of its path."""
    fd = fifo.find(out)
    assert fd is not None
    yield fd
    os.close(fd)


async def test_fifos_are_held_without_a_keeper_that_answers(
    out: Path, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who wants them held, until they are dropped."""
    monkeypatch.setattr(module, "_HOLDING", 0.2)
    async with last_supervisor() as keeper:
        pid = pid_of(keeper)
        assert not await keeper.hold("opened:a", [], [found])  # nobody reads
        reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
        os.kill(pid, signal.SIGSTOP)
        try:
            assert await keeper.hold("opened:a", [], [found])
            with pytest.raises(BlockingIOError):
                os.read(reader, 1)
        finally:
            os.kill(pid, signal.SIGCONT)
        keeper.drop("opened:a")
        await until(lambda: at_its_end(reader))
        assert await keeper.hold("opened:a", [], [found])
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        keeper.drop("opened:a")
        await until(lambda: at_its_end(reader))
    os.close(reader)


async def test_fifos_are_held_by_the_next_keeper(out: Path, found: int) -> None:
    """From the ends that their owner has opened meanwhile."""
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    async with supervisor() as keeper:
        assert await keeper.hold("opened:a", [], [found])
        own = os.open(out, os.O_WRONLY)
        keeper.held("opened:a", [own])
        os.kill(pid := pid_of(keeper), signal.SIGKILL)
        await until(lambda: keeper.pid not in (0, pid))
        await keeper.told()
    os.close(own)
    async with last_supervisor() as keeper:
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        assert len(keeper.take("opened:a") or []) == 1
        keeper.drop("opened:a")
    os.close(reader)


async def test_who_ends_waits_until_the_next_keeper_has_all(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only until there is one."""

    async def slow(self: Keeper, link: keeper_link.Link, have: Callable[[str, list[int]], None]) -> None:
        await anyio.sleep(0.2)
        await inherit(self, link, have)

    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    own = os.open(out, os.O_WRONLY)
    async with supervisor() as keeper:
        keeper.keep("a", [own])
        await keeper.told()
        inherit = Keeper._inherit
        with monkeypatch.context() as patched:
            patched.setattr(Keeper, "_inherit", slow)
            os.kill(pid := pid_of(keeper), signal.SIGKILL)
            await until(lambda: keeper.pid not in (0, pid))
            await keeper.told()
    os.close(own)
    async with last_supervisor():
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    os.close(reader)


async def test_a_name_that_is_too_long_is_held_here(found: int) -> None:
    async with last_supervisor() as keeper:
        assert not await keeper.hold("x" * 300, [], [found])
        keeper.drop("x" * 300)
        keeper.keep("another", [found])
        await keeper.told()
        keeper.drop("another")
