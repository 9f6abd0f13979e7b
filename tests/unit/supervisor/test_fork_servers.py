"""The lives of fork servers: found at the daemon's start, judged by their version, and never left behind."""

import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest

from shimd import paths
from shimd.engines.registry import installed_version
from shimd.linux import libc
from shimd.linux.pidfd import is_zombie
from shimd.protocol.constants import VERSION
from shimd.protocol.fork_server import LASTING, Hello, Retire, decode_request
from shimd.protocol.packets import receive, send
from shimd.protocol.plans import NativeCommand
from shimd.supervisor import shortage
from shimd.supervisor.background import Background
from shimd.supervisor.recovery import alone
from shimd.supervisor.workers import fork_servers, watchdog
from shimd.supervisor.workers.fork_client import Worker, launch
from shimd.supervisor.workers.fork_servers import ForkServers
from tests.unit.short import no_descriptors

pytestmark = pytest.mark.anyio
ENGINE = "wasmtime"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SHIMD_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("SHIMD_LINGER", "0.1")
    yield
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if str(tmp_path).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                os.kill(int(path.parent.name), signal.SIGKILL)
                os.waitpid(int(path.parent.name), 0)


@asynccontextmanager
async def daemon() -> AsyncIterator[ForkServers]:
    """One daemon's life, as far as fork servers go."""
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            servers = ForkServers(Background(tasks))
            await servers.find()
            yield servers
            tasks.cancel_scope.cancel()


async def sleeper(servers: ForkServers, directory: Path) -> Worker:
    null = os.open(os.devnull, os.O_RDWR)
    try:
        client = await servers.get(ENGINE)
        worker = await client.spawn("sleeper", NativeCommand(str(directory), ["/bin/sleep", "600"]), (null,) * 3)
        assert await worker.receive() is None
        return worker
    finally:
        os.close(null)


async def ended(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    await anyio.wait_readable(pidfd)
    os.close(pidfd)


async def test_the_next_daemon_finds_it_and_goes_on_with_it(tmp_path: Path) -> None:
    async with daemon() as servers:
        worker = await sleeper(servers, tmp_path)
        pid = servers.pid(ENGINE)
    worker.close()
    async with daemon() as servers:
        await servers.get(ENGINE)
        (found,) = servers
        assert (found.pid, found.workers, found.retiring) == (pid, 1, False)
        assert found.version == installed_version(ENGINE)
        await servers.end_unclaimed()
        while found.client.workers:  # noqa: ASYNC110 — until it is forgotten
            await anyio.sleep(0.01)


async def test_one_that_has_loaded_another_version_leaves_with_its_last_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after ``pip install -U``: it would run the old engine for ever."""
    with monkeypatch.context() as old:
        old.setattr("shimd.supervisor.workers.fork_client.installed_version", lambda _engine: "1.0")
        async with daemon() as servers:
            worker = await sleeper(servers, tmp_path)
            pid = servers.pid(ENGINE)
        worker.close()
    async with daemon() as servers:
        await servers.get(ENGINE)
        new, former = servers
        assert (new.retiring, former.retiring) == (False, True)
        assert (former.pid, former.version, former.workers) == (pid, "1.0", 1)
        assert servers.pid(ENGINE) == new.pid != pid
        await servers.end_unclaimed()
        await ended(pid)
        assert len(paths.fork_server_sockets()) == 1


async def test_a_socket_that_nobody_listens_at_is_removed() -> None:
    path = paths.fork_server_socket(ENGINE, "gone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
    async with daemon() as servers:
        assert list(servers) == []
        assert not path.exists()


async def test_one_that_there_is_no_room_to_connect_to_is_found_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else hears of its workers' exits."""
    monkeypatch.setattr(shortage, "_PAUSE", 0.01)
    async with daemon() as servers:
        worker = await sleeper(servers, tmp_path)
    async with anyio.create_task_group() as tasks:
        servers = ForkServers(Background(tasks))
        with no_descriptors():
            tasks.start_soon(servers.find)
            await anyio.sleep(0.05)
            assert list(servers) == []
        while (adopted := servers.adopted(worker.key)) is None:  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(0.01)
        await adopted.forks.end(adopted)
        tasks.cancel_scope.cancel()
    worker.close()


async def test_an_exit_that_only_a_dead_fork_server_knew(tmp_path: Path) -> None:
    """The app, its daemon and its fork server are gone, in whatever order: its code is not lost."""
    async with daemon() as servers:
        worker = await sleeper(servers, tmp_path)
        pid = servers.pid(ENGINE)
    os.kill(worker.pid, signal.SIGTERM)
    path = paths.noted_exits(paths.fork_server_sockets()[0])
    with anyio.fail_after(20):
        while not any(path.read_bytes()):  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    await ended(pid)
    async with daemon() as servers:
        orphan = servers.orphan(worker.key, worker.pid, worker.start)
        await orphan.exited.wait()
        assert orphan.status == signal.SIGTERM
        assert not path.exists()
    worker.close()


async def test_one_that_speaks_another_version_is_left_to_itself(caplog: pytest.LogCaptureFixture) -> None:
    path = paths.fork_server_socket(ENGINE, "newer")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        async with daemon() as servers:
            connection, _address = listener.accept()
            with connection:
                packet = receive(connection, decode_request)
                assert packet is not None
                assert packet[0] == Hello(VERSION)
                send(connection, Hello(LASTING - 1))
                client = await servers.get(ENGINE)  # ours, at once
                assert client.closed is False
                assert servers.pid(ENGINE) != os.getpid()
    assert f"speaks version {LASTING - 1}" in caplog.text


async def test_of_two_only_one_takes_new_apps() -> None:
    """Two daemons may have started one each."""
    for name in ("a", "b"):
        sock, _pid = launch(ENGINE, paths.fork_server_socket(ENGINE, name))
        sock.close()
    async with daemon() as servers:
        await servers.get(ENGINE)
        while sum(server.retiring for server in servers) + (len(list(servers)) == 1) < 1:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        assert sum(not server.retiring for server in servers) == 1


async def test_of_two_that_were_started_only_one_takes_new_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start takes so long that somebody else goes on without it."""
    monkeypatch.setattr(fork_servers, "_PATIENCE", 0.01)
    slow = [anyio.Event()]

    async def spawn(argv: Sequence[str], env: Mapping[str, str], fds: Mapping[int, int]) -> int:
        if slow:
            await slow.pop().wait()
        return alone.spawn(argv, env, fds)

    first_may_go_on, found = slow[0], []
    async with anyio.create_task_group() as tasks:
        servers = ForkServers(Background(tasks), spawn=spawn)

        async def wants() -> None:
            found.append(await servers.get(ENGINE))

        tasks.start_soon(wants)
        await anyio.wait_all_tasks_blocked()
        await wants()
        first_may_go_on.set()
        while len(found) < 2:  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(0.01)
        assert found[0] is found[1]
        while len(list(servers)) > 1:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        assert servers.pid(ENGINE)
        tasks.cancel_scope.cancel()


class Subreaper:
    """What another process, a keeper, knows of ends and is asked to forget."""

    def __init__(self) -> None:
        self.forgotten: list[tuple[int, int]] = []

    def forget(self, pid: int, start: int) -> None:
        self.forgotten.append((pid, start))


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[ForkServers, Subreaper]]:
    """A daemon that is a subreaper of another's, with its watchdog in a hurry."""
    keeper = Subreaper()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            yield ForkServers(Background(tasks), forget_exit=keeper.forget), keeper
            tasks.cancel_scope.cancel()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its parent is this process, a subreaper as the daemon is."""
    monkeypatch.setattr(watchdog, "TURN", 0.05)
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    yield
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 0)


async def script(servers: ForkServers, directory: Path, name: str, words: str) -> Worker:
    null = os.open(os.devnull, os.O_RDWR)
    try:
        plan = NativeCommand(str(directory), ["/bin/sh", "-c", words])
        worker = await (await servers.get(ENGINE)).spawn(name, plan, (null,) * 3)
        await worker.becomes_another()
        return worker
    finally:
        os.close(null)


@pytest.mark.usefixtures("hurried")
async def test_one_that_stands_still_is_replaced_and_its_apps_are_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the codes that they end with, and what is known elsewhere of these ends is forgotten with them."""
    os.mkfifo(tmp_path / "fifo")
    async with watched() as (servers, keeper):
        app = await script(servers, tmp_path, "app", f"read _line <{tmp_path}/fifo; exit 7")
        client, pid = app.forks, servers.pid(ENGINE)
        os.kill(pid, signal.SIGSTOP)
        while not client.closed:  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(0.01)
        assert f"pid {pid}, does not answer, and is killed" in caplog.text
        other = await script(servers, tmp_path, "other", "exit 3")
        assert servers.pid(ENGINE) not in (0, pid)
        await other.exited.wait()
        assert other.status == 3 << 8
        assert app.status is None and servers.wants_exit(app.pid, app.start)
        (tmp_path / "fifo").write_text("\n")
        await app.exited.wait()
        assert app.status == 7 << 8
        assert keeper.forgotten == []
        await client.forget(app)
        assert keeper.forgotten == [(app.pid, app.start)]
        assert not servers.wants_exit(app.pid, app.start)
        await other.forks.forget(other)
        while is_zombie(pid):  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(0.01)


@pytest.mark.usefixtures("hurried")
async def test_one_that_is_killed_loses_no_app(tmp_path: Path) -> None:
    """Several end before anybody has noticed, and after; one by a signal."""
    os.mkfifo(tmp_path / "fifo")
    async with watched() as (servers, _keeper):
        apps = [
            await script(servers, tmp_path, "kill", "kill -TERM $$"),
            await script(servers, tmp_path, "exit", f"read _line <{tmp_path}/fifo; exit 9"),
        ]
        os.kill(servers.pid(ENGINE), signal.SIGKILL)
        (tmp_path / "fifo").write_text("\n")
        for app, status in zip(apps, (signal.SIGTERM, 9 << 8), strict=True):
            await app.exited.wait()
            assert app.status == status
            await app.forks.forget(app)


async def test_a_second_supervisor_is_refused_while_the_first_lives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched() as (servers, _keeper):
        app = await sleeper(servers, tmp_path)
        (path,) = paths.fork_server_sockets()
        async with watched() as (others, _):
            await others.find()
            while list(others):  # noqa: ASYNC110 — no event tells of it
                await anyio.sleep(0.01)
        assert "serves another supervisor" in caplog.text
        assert path.exists()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as rude:
            rude.connect(str(path))
            rude.send(b"no greeting")
        app.signal(signal.SIGTERM)
        await app.exited.wait()
        assert app.status == signal.SIGTERM
        await app.forks.end(app)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
async def test_a_strangers_connection_is_closed(tmp_path: Path) -> None:
    """Whoever has got at the socket."""
    async with watched() as (servers, _keeper):
        app = await sleeper(servers, tmp_path)
        (path,) = paths.fork_server_sockets()
        pid = os.fork()
        if pid == 0:
            code = 1
            with suppress(BaseException):
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                os.chdir(path.parent)
                path.parent.chmod(0o755)
                path.chmod(0o666)
                os.setresuid(65534, 65534, 65534)
                sock.connect(path.name)
                sock.settimeout(20)
                code = 0 if sock.recv(100) == b"" else 2
            os._exit(code)
        pidfd = os.pidfd_open(pid)
        await anyio.wait_readable(pidfd)
        os.close(pidfd)
        assert os.waitpid(pid, 0)[1] == 0  # noqa: ASYNC222 — it has ended
        assert app.status is None
        await app.forks.end(app)


async def test_who_waits_for_one_that_stands_still_does_not_keep_the_daemon(tmp_path: Path) -> None:
    """At an orderly end."""
    async with watched() as (servers, _keeper):
        app = await sleeper(servers, tmp_path)
        os.kill(servers.pid(ENGINE), signal.SIGSTOP)
        servers.leave()
        while not app.forks.closed:  # noqa: ASYNC110 — no event tells of it
            await anyio.sleep(0.01)
        app.signal(signal.SIGKILL)
        app.close()


def test_engines_of_sockets() -> None:
    for engine in ("wasmtime", "wasi-http", "my.engine"):
        assert paths.engine_of(paths.fork_server_socket(engine, "0a1b")) == engine


def test_a_request_of_its_own_retires() -> None:
    assert decode_request(b'{"type":"Retire"}') == Retire()


async def test_one_of_another_parent_takes_no_new_apps(tmp_path: Path) -> None:
    """The keeper that it was a child of is gone: who would tell how its workers end has to be its parent."""
    parent = os.getpid()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            servers = ForkServers(Background(tasks), parent=lambda: parent)
            worker = await sleeper(servers, tmp_path)
            pid = servers.pid(ENGINE)
            servers.renew()
            await servers.get(ENGINE)
            assert servers.pid(ENGINE) == pid
            parent = 1
            servers.renew()
            await (await servers.get(ENGINE)).hello()  # it is heard from before its end
            new = servers.pid(ENGINE)
            assert new != pid
            assert {one.pid: one.retiring for one in servers} == {pid: True, new: False}
            tasks.cancel_scope.cancel()
    worker.close()
