"""Connections whose server is killed at any moment: each request has its answer, and nothing is begun twice unsaid."""

import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest
from anyio.abc import Listener, SocketAttribute, SocketStream, UNIXSocketStream

from shimd.supervisor import shortage
from shimd.supervisor.background import Background
from shimd.supervisor.recovery import connections as connections_module
from shimd.supervisor.recovery.connections import Connections, server_of
from shimd.supervisor.recovery.keeping import NotKept
from shimd.supervisor.recovery.memory_log import MemoryLog
from shimd.ttrpc import Call, Client, Method, Server, frames
from shimd.ttrpc.envelope import Response
from shimd.ttrpc.frames import Frame, FrameReader
from tests.unit.supervisor.recovery.kept import KeptInMemory
from tests.unit.supervisor.recovery.killed import died, lines, start_doomed
from tests.unit.ttrpc.ttrpc_support import answer, eventually, raw, read_frames, request

FILES = ("memory_log.py", "request_log.py", "counted.py", "_logged_link.py", "session.py", "_call.py")
NAME = "connection:x:1"
#: More than the socket takes at once, in a frame; it does not fit into a new log either.
LARGE = 400_000


class Runs:
    """What handlers did, of all processes: a line each in a pipe."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK)

    def services(self, hold: bool) -> Server:
        async def run(call: Call, payload: bytes) -> bytes:
            os.write(self._write, b"%s %d\n" % (payload[:2], call.replayed))
            if hold and payload[:2] == b"ho":
                await anyio.sleep_forever()
            return payload

        return Server({"test.Test": {"Echo": Method.unary(run, raw, raw)}})

    def take(self) -> list[tuple[str, bool]]:
        try:
            said = os.read(self._read, 65536).decode()
        except BlockingIOError:
            said = ""
        return [(line[:2], line[3] == "1") for line in said.splitlines()]

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Scene:
    """A connection, its log, and the two servers of it, the first in a process that dies."""

    def __init__(self) -> None:
        self.near, far = socket.socketpair()
        self.near.setblocking(False)
        self.log = MemoryLog.create("test")
        self.fds = [far.detach(), self.log.fd]
        self.runs = Runs()

    def start_first(self, line: int) -> int:
        async def serve() -> None:
            await Connections(self.runs.services(hold=True), NotKept(), "x").resume(NAME, list(map(os.dup, self.fds)))

        return start_doomed(line, FILES, serve)

    async def serve_second(self) -> None:
        await Connections(self.runs.services(hold=False), NotKept(), "x").resume(NAME, list(map(os.dup, self.fds)))

    def close(self) -> None:
        self.near.close()
        os.close(self.fds[0])
        self.log.close()
        self.runs.close()


REQUESTS = {
    1: b"aa",
    3: b"ho that is answered by nobody but the second server",
    5: b"bb" + bytes(LARGE),
    7: b"cc",
    9: b"dd" + bytes(50_000),
    11: b"ee",
    13: b"ff and its end is said late",
}
LATE = 10


async def converse(scene: Scene, pid: int) -> tuple[dict[int, bytes], bool]:
    """Be the client. The first server is killed when it can do no more, at the latest.

    :return: the answers, and whether the first server was alive then
    """
    wire = b"".join(request(id, "Echo", 0, payload) for id, payload in REQUESTS.items())
    answers: dict[int, bytes] = {}
    all_but_two = anyio.Event()
    survived = False
    near = await UNIXSocketStream.from_socket(scene.near.dup())

    async def send(dead: anyio.Event) -> None:
        await near.send(wire[:-LATE])
        await dead.wait()
        await near.send(wire[-LATE:])

    async def receive() -> None:
        reader = FrameReader()
        while len(answers) < len(REQUESTS):
            reader.feed(await near.receive(20_000))
            while isinstance(frame := reader.next(), Frame):
                id, response = answer(frame)
                assert id not in answers, "answered twice"
                assert not response.status.code, response
                answers[id] = response.payload
                if len(answers) == len(REQUESTS) - 2:
                    all_but_two.set()
        assert reader.unconsumed == b""

    async def end_survivor() -> None:
        nonlocal survived
        await all_but_two.wait()
        survived = True
        os.kill(pid, signal.SIGKILL)

    dead = anyio.Event()
    with anyio.fail_after(20):
        async with near, anyio.create_task_group() as tasks, anyio.create_task_group() as client:
            client.start_soon(send, dead)
            client.start_soon(receive)
            async with anyio.create_task_group() as first:
                first.start_soon(end_survivor)
                await died(pid)
                first.cancel_scope.cancel()
            dead.set()
            tasks.start_soon(scene.serve_second)
            client.start_soon(eventually, lambda: len(answers) == len(REQUESTS))
            await eventually(lambda: len(answers) == len(REQUESTS))
            tasks.cancel_scope.cancel()
    return answers, survived


def test_killed_anywhere_every_request_is_answered_once() -> None:
    """The stages are all there: not read, read in part, read, begun, answered, sent in part, sent."""
    for line in lines():
        scene = Scene()
        answers, survived = anyio.run(converse, scene, scene.start_first(line))
        assert answers == REQUESTS, f"killed at line {line}"
        runs = scene.runs.take()
        for payload in REQUESTS.values():
            key = payload[:2].decode()
            assert [replayed for name, replayed in runs if name == key].count(False) <= 1, f"killed at line {line}"
            assert any(name == key for name, _replayed in runs)
        scene.close()
        if survived:
            assert ("ho", True) in runs
            assert ("ff", False) in runs, "it never was whole before"
            break


pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def runs() -> AsyncIterator[Runs]:
    runs = Runs()
    with anyio.fail_after(30):
        yield runs
    runs.close()


@pytest.fixture
async def keeper() -> AsyncIterator[KeptInMemory]:
    keeper = KeptInMemory()
    yield keeper
    keeper.close()
    assert not keeper.faults


def only(keeper: KeptInMemory) -> str:
    (name,) = keeper.kept
    return name


async def test_a_connection_is_kept_from_its_first_request_to_its_end(
    runs: Runs, keeper: KeptInMemory, tmp_path: Path
) -> None:
    connections = Connections(runs.services(hold=False), keeper, "wasmtime:k8s.io:/run/c.sock")
    async with await anyio.create_unix_listener(tmp_path / "s") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(connections.serve, listener, Background(tasks))
        async with Client(await anyio.connect_unix(tmp_path / "s")) as client:
            for number in range(100):
                assert await client.unary("test.Test", "Echo", b"aa%d" % number) == b"aa%d" % number
            assert server_of(only(keeper)) == "wasmtime:k8s.io:/run/c.sock"
            large = b"la" + os.urandom(frames.MAX_DATA - 100)
            assert await client.unary("test.Test", "Echo", large) == large
            for _ in range(3000):
                await client.unary("test.Test", "Echo", bytes(500))
            size = os.fstat(keeper.kept[only(keeper)][1]).st_size
            assert size <= 1 << 16, "what was large is given back"
        await eventually(lambda: not keeper.kept)
        tasks.cancel_scope.cancel()
    assert not any(replayed for _, replayed in runs.take())
    assert server_of("events:/run/c.sock") is None


async def test_it_outlives_a_server_that_is_cancelled(runs: Runs, keeper: KeptInMemory, tmp_path: Path) -> None:
    """A planned end is as good as a kill: nobody says goodbye."""
    path = tmp_path / "s"
    async with await anyio.create_unix_listener(path) as listener, await anyio.connect_unix(path) as near:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Connections(runs.services(hold=True), keeper, "x").serve, listener, Background(tasks))
            await near.send(request(1, "Echo", 0, b"ho") + request(3, "Echo", 0, b"aa"))
            assert answer((await read_frames(near, 1))[0]) == (3, Response(payload=b"aa"))
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            name = only(keeper)
            fds = keeper.take(name)
            assert fds is not None
            tasks.start_soon(Connections(runs.services(hold=False), keeper, "x").resume, name, fds)
            assert answer((await read_frames(near, 1))[0]) == (1, Response(payload=b"ho"))
            await near.send(request(5, "Echo", 0, b"bb"))
            assert answer((await read_frames(near, 1))[0]) == (5, Response(payload=b"bb"))
            await near.aclose()
            await eventually(lambda: not keeper.kept)
    assert sorted(runs.take()) == [("aa", False), ("bb", False), ("ho", False), ("ho", True)]


async def test_streams_end_with_their_process(runs: Runs, keeper: KeptInMemory) -> None:
    near, far = socket.socketpair()
    log = MemoryLog.create("test")
    stream = await UNIXSocketStream.from_socket(near)
    wire = request(1, "Echo", frames.REMOTE_OPEN) + frames.encode(3, 0, 1, b"data") + request(3, "Echo", 0, b"aa")
    await stream.send(wire)
    assert log.receive(far, 65536) == wire
    async with stream, anyio.create_task_group() as tasks:
        connections = Connections(runs.services(hold=False), keeper, "x")
        tasks.start_soon(connections.resume, NAME, [far.detach(), os.dup(log.fd)])
        answers = dict(answer(frame) for frame in await read_frames(stream, 2))
        assert answers[1].status.message == "the connection moves to another process"
        assert answers[3].payload == b"aa"
        await stream.aclose()
    log.close()


def newer(log: MemoryLog) -> None:
    os.pwrite(log.fd, b"\2", 8)


def endless(log: MemoryLog) -> None:
    os.pwrite(log.fd, b"\1\xff\xff\xff\xff\0\0\0", 256)


def of_another_kind(log: MemoryLog) -> None:
    log.append(77, 0, b"")


def cut_short(log: MemoryLog) -> None:
    os.ftruncate(log.fd, 100)


def too_large(log: MemoryLog) -> None:
    log.append(1, 0, (5 << 20).to_bytes(4, "big") + b"\0\0\0\1\1\0")


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (newer, "it is of version 2, and this shimd reads 1"),
        (endless, "an entry is longer than the log"),
        (of_another_kind, "it has entries of an unknown kind"),
        (cut_short, "it has 100 bytes"),
        (too_large, "its client is in the middle of a frame that is too large"),
        (None, "it has 3 descriptors"),
    ],
)
async def test_a_log_that_makes_no_sense_costs_its_connection(
    keeper: KeptInMemory,
    runs: Runs,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[MemoryLog], None] | None,
    sentence: str,
) -> None:
    near, far = socket.socketpair()
    log = MemoryLog.create("test")
    keeper.keep(NAME, [far.fileno()])
    fds = [far.detach()]
    fds.append(os.dup(log.fd))
    if harm:
        harm(log)
    else:
        fds.append(os.dup(log.fd))
    await Connections(runs.services(hold=False), keeper, "x").resume(NAME, fds)
    assert caplog.messages == [f"a connection of x cannot be served, and is closed: {sentence}"]
    assert not keeper.kept
    assert near.recv(1) == b""
    near.close()
    if harm is not cut_short:
        log.close()
    else:
        os.ftruncate(log.fd, 8192)
        log.close()


async def test_a_connection_that_had_no_log_yet(keeper: KeptInMemory, runs: Runs, tmp_path: Path) -> None:
    """Its supervisor died at once; what has come meanwhile is all still in the socket."""
    async with await anyio.create_unix_listener(tmp_path / "s") as listener, anyio.create_task_group() as tasks:
        async with Client(await anyio.connect_unix(tmp_path / "s")) as client:
            accepted, _address = listener.extra(SocketAttribute.raw_socket).accept()
            keeper.keep(NAME, [accepted.fileno()])
            fds = [accepted.detach()]
            tasks.start_soon(Connections(runs.services(hold=False), keeper, "x").resume, NAME, fds)
            assert await client.unary("test.Test", "Echo", b"aa") == b"aa"
            assert len(keeper.kept[NAME]) == 2
        tasks.cancel_scope.cancel()


async def test_without_a_log_a_connection_is_served_all_the_same(
    runs: Runs, keeper: KeptInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_memory(_name: str) -> MemoryLog:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(MemoryLog, "create", no_memory)
    async with await anyio.create_unix_listener(tmp_path / "s") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(Connections(runs.services(hold=False), keeper, "x").serve, listener, Background(tasks))
        async with Client(await anyio.connect_unix(tmp_path / "s")) as client:
            assert await client.unary("test.Test", "Echo", b"aa") == b"aa"
        tasks.cancel_scope.cancel()
    assert "will not outlive us" in caplog.text


async def test_a_log_without_memory_holds_a_request_up_and_loses_no_answer(
    runs: Runs, keeper: KeptInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.posix_fallocate
    short = True

    def fallocate(fd: int, offset: int, size: int) -> None:
        if short and size > 8192:
            raise OSError(12, "Cannot allocate memory")
        real(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", fallocate)

    async def grow(call: Call, payload: bytes) -> bytes:
        return payload * 10_000

    server = Server({"test.Test": {"Grow": Method.unary(grow, raw, raw)}})
    async with await anyio.create_unix_listener(tmp_path / "s") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(Connections(server, keeper, "x").serve, listener, Background(tasks))
        async with Client(await anyio.connect_unix(tmp_path / "s")) as client:
            assert await client.unary("test.Test", "Grow", b"x") == b"x" * 10_000
            with anyio.move_on_after(0.2):
                await client.unary("test.Test", "Grow", b"x" * 10_000)
            short = False
            assert await client.unary("test.Test", "Grow", b"y") == b"y" * 10_000
        tasks.cancel_scope.cancel()


async def test_one_that_fails_ends_no_other(
    runs: Runs, keeper: KeptInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with await anyio.create_unix_listener(tmp_path / "s") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(Connections(runs.services(hold=False), keeper, "x").serve, listener, Background(tasks))
        async with Client(await anyio.connect_unix(tmp_path / "s")) as client:
            assert await client.unary("test.Test", "Echo", b"aa") == b"aa"

            async def from_socket(_sock: socket.socket) -> UNIXSocketStream:
                raise ValueError("a bug")

            with monkeypatch.context() as patch:
                patch.setattr(UNIXSocketStream, "from_socket", from_socket)
                near = socket.socket(socket.AF_UNIX)
                near.connect(str(tmp_path / "s"))
                await eventually(lambda: "cannot be served, and is closed: a bug" in caplog.text)
            assert near.recv(1) == b""
            near.close()
            assert await client.unary("test.Test", "Echo", b"bb") == b"bb"
            assert len(keeper.kept) == 1
        tasks.cancel_scope.cancel()


async def test_connections_outlive_their_listener(runs: Runs, keeper: KeptInMemory, tmp_path: Path) -> None:
    connections, listening = Connections(runs.services(hold=False), keeper, "x"), anyio.CancelScope()

    async def serve(listener: Listener[SocketStream], tasks: Background) -> None:
        with listening:
            await connections.serve(listener, tasks)

    async with await anyio.create_unix_listener(tmp_path / "s") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(serve, listener, Background(tasks))
        async with Client(await anyio.connect_unix(tmp_path / "s")) as client:
            assert await client.unary("test.Test", "Echo", b"aa") == b"aa"
            listening.cancel()
            await anyio.wait_all_tasks_blocked()
            assert await client.unary("test.Test", "Echo", b"bb") == b"bb"
            assert connections.busy
        await eventually(lambda: not keeper.kept)
        tasks.cancel_scope.cancel()


async def test_an_earlier_log_waits_for_memory(
    runs: Runs, keeper: KeptInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = socket.socketpair()
    log = MemoryLog.create("test")
    assert log.append(1, 0, request(1, "Echo", 0, b"aa"))
    real, failed = MemoryLog.open, 0

    def no_memory(fd: int) -> MemoryLog:
        nonlocal failed
        if not failed:
            failed += 1
            raise OSError(12, "Cannot allocate memory")
        return real(fd)

    monkeypatch.setattr(MemoryLog, "open", no_memory)
    monkeypatch.setattr(shortage, "_PAUSE", 0.01)
    async with await UNIXSocketStream.from_socket(near) as stream, anyio.create_task_group() as tasks:
        connections = Connections(runs.services(hold=False), keeper, "x")
        tasks.start_soon(connections.resume, NAME, [far.detach(), os.dup(log.fd)])
        assert answer((await read_frames(stream, 1))[0]) == (1, Response(payload=b"aa"))
        tasks.cancel_scope.cancel()
    log.close()


def test_an_announcement_that_nobody_follows_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = Connections(Server({}), NotKept(), "x")
    monkeypatch.setattr(connections_module, "_COMES_WITHIN", 0.0)
    for _ in range(3):
        connections.announce()
    assert len(connections._announced) <= 1
    assert not connections.busy
