"""Events whose supervisor is killed at any moment: containerd has each once, and in order."""

import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import Listener, SocketListener, SocketStream, UNIXSocketStream

from shimd.api.containerd import events as api
from shimd.api.containerd.services.events.ttrpc.v1 import ForwardRequest
from shimd.supervisor import forwarder, shortage
from shimd.supervisor.background import Background
from shimd.supervisor.events import EventBus
from shimd.supervisor.recovery.keeping import NotKept
from shimd.supervisor.recovery.memory_log import MemoryLog
from shimd.supervisor.recovery.outbox import Outbox, stream_of
from shimd.ttrpc import Call, Method, Server
from shimd.ttrpc.envelope import Request
from tests.unit.supervisor.recovery.kept import KeptInMemory
from tests.unit.supervisor.recovery.killed import died, lines, start_doomed
from tests.unit.ttrpc.ttrpc_support import eventually

pytestmark = pytest.mark.anyio
FILES = ("memory_log.py", "outbox.py", "counted.py", "forwarder.py", "events.py")
WHEN = datetime(2026, 1, 1, tzinfo=UTC)
#: Events of one process, one of which the socket does not take at once.
COUNT, LARGE = 8, 3


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class SendingKeeper(NotKept):
    """Keeps in another process: what is sent there is there, whatever becomes of us."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def keep(self, name: str, fds: Sequence[int]) -> None:
        socket.send_fds(self._sock, [name.encode()], list(fds))


def last_kept(sock: socket.socket) -> tuple[str, list[int]] | None:
    """What the keeper has been given last, of one name."""
    kept: tuple[str, list[int]] | None = None
    while True:
        try:
            name, fds, _flags, _address = socket.recv_fds(sock, 4096, 4, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return kept
        if not name:
            return kept
        for fd in kept[1] if kept else []:
            os.close(fd)
        kept = name.decode(), fds


class Containerd:
    def __init__(self, path: Path) -> None:
        self.path, self.taken = path, [""][:0]

    async def _forward(self, _call: Call, data: bytes) -> bytes:
        envelope = ForwardRequest.parse(data).envelope
        assert envelope is not None and envelope.event is not None
        self.taken.append(api.TaskStart.parse(envelope.event.value).container_id[:8].rstrip("x"))
        return b""

    @asynccontextmanager
    async def serving(self, earlier: Listener[SocketStream] | None = None) -> AsyncIterator[None]:
        if earlier is None:
            self.path.unlink(missing_ok=True)
        method = Method.unary(self._forward, bytes, bytes)
        server = Server({"containerd.services.events.ttrpc.v1.Events": {"Forward": method}})
        listener = earlier or await anyio.create_unix_listener(self.path)
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, listener)
            yield
            tasks.cancel_scope.cancel()


def event(number: int) -> api.TaskStart:
    return api.TaskStart(container_id=f"{number}x" if number != LARGE else str(number) + "x" * 400_000, pid=1)


async def publish_until_killed(address: str, kept: socket.socket, written_down: int) -> None:
    async with anyio.create_task_group() as tasks:
        bus = EventBus(Background(tasks), SendingKeeper(kept))
        for number in range(COUNT):
            seq = bus.next_seq(address)
            os.write(written_down, bytes([seq]))
            bus.publish(address, "space", event(number), seq)
            await anyio.lowlevel.checkpoint()


async def go_on(containerd: Containerd, pid: int, kept: socket.socket, written_down: int) -> bool:
    """Be containerd, and the supervisor's successor. Whether the first supervisor had to be killed at the end."""
    survived = False

    async def end_survivor() -> None:
        nonlocal survived
        await eventually(lambda: len(containerd.taken) == COUNT)
        survived = True
        with suppress(ProcessLookupError):  # it ends by itself, too
            os.kill(pid, signal.SIGKILL)

    address = str(containerd.path)
    with anyio.fail_after(20):
        async with containerd.serving(), anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as first:
                first.start_soon(end_survivor)
                await died(pid)
                first.cancel_scope.cancel()
            numbers = list(os.read(written_down, 100))
            bus = EventBus(Background(tasks), KeptInMemory())
            if (found := last_kept(kept)) is not None:
                await bus.resume(*found)
            for seq in numbers:
                bus.publish_again(address, "space", event(seq - 1), seq, WHEN)
            for number in range(len(numbers), COUNT + 1):
                bus.publish(address, "space", event(number))
            await eventually(lambda: bus.queued() == {address: 0})
            tasks.cancel_scope.cancel()
        bus.close()
    return survived


def test_killed_anywhere_containerd_has_each_event_once_and_in_order(tmp_path: Path) -> None:
    for line in lines():
        containerd = Containerd(tmp_path / "events.sock")
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read, write = os.pipe2(os.O_NONBLOCK)
        os.write(write, b"")

        async def publish(there: socket.socket = there, write: int = write) -> None:
            await publish_until_killed(str(tmp_path / "events.sock"), there, write)

        pid = start_doomed(line, FILES, publish)
        os.close(write)
        there.close()
        survived = anyio.run(go_on, containerd, pid, here, read)
        assert containerd.taken == [str(number) for number in range(COUNT + 1)], f"killed at line {line}"
        os.close(read)
        here.close()
        if survived:
            break


def has_taken(containerd: Containerd, count: int) -> bool:
    return len(containerd.taken) == count


@asynccontextmanager
async def running(keeper: KeptInMemory) -> AsyncIterator[EventBus]:
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            bus = EventBus(Background(tasks), keeper)
            try:
                yield bus
            finally:
                tasks.cancel_scope.cancel()
                bus.close()
    assert not keeper.faults


async def resume(bus: EventBus, keeper: KeptInMemory) -> None:
    (name,) = keeper.kept
    fds = keeper.take(name)
    assert fds is not None
    await bus.resume(name, fds)


async def test_one_bus_after_the_other(tmp_path: Path) -> None:
    """On the same connection while it lasts; on another if containerd was restarted meanwhile."""
    containerd, keeper = Containerd(tmp_path / "s"), KeptInMemory()
    address = f"unix://{containerd.path}"
    async with running(keeper) as bus:
        bus.publish(address, "space", event(0))
    async with containerd.serving():
        for number in range(1, 4):
            async with running(keeper) as bus:
                await resume(bus, keeper)
                bus.publish(address, "space", event(number))
                await eventually(lambda: bus.queued() == {address: 0})
                assert len(containerd.taken) == number + 1
                assert len(keeper.kept[f"events:{address}"]) == 2
    async with running(keeper) as bus:
        await resume(bus, keeper)
        assert bus.queued() == {address: 0}
        assert bus.next_seq(address) == 5
        bus.publish(address, "space", event(4))
        bus.publish_again(address, "space", event(4), 5, WHEN)
        bus.publish_again(address, "space", event(5), 6, WHEN)
        async with containerd.serving():
            await eventually(lambda: len(containerd.taken) == 6)
    assert containerd.taken == list("012345")


async def test_events_of_a_lost_outbox_are_not_told_twice(tmp_path: Path) -> None:
    """It is gone with its keeper, or with a supervisor that had nothing to do any more; the journal has them still."""
    containerd, keeper = Containerd(tmp_path / "s"), KeptInMemory()
    address = str(containerd.path)
    async with containerd.serving():
        async with running(keeper) as bus:
            for number in range(3):
                bus.publish(address, "space", event(number))
            await eventually(partial(has_taken, containerd, 3))
        for again in (False, True):
            async with running(keeper) as bus:
                if not again:
                    keeper.close()
                else:
                    await resume(bus, keeper)
                for number in range(3):
                    bus.publish_again(address, "space", event(number), number + 1, WHEN)
                assert bus.queued() == {address: 0}
        async with running(keeper) as bus:
            await resume(bus, keeper)
            bus.publish(address, "space", event(3), bus.next_seq(address))
            await eventually(partial(has_taken, containerd, 4))
    assert containerd.taken == list("0123")


async def test_what_is_written_down_before_the_first_event_is_queued_is_not_lost(tmp_path: Path) -> None:
    containerd, keeper = Containerd(tmp_path / "s"), KeptInMemory()
    address = str(containerd.path)
    async with running(keeper) as bus:
        seq = bus.next_seq(address)
    async with running(keeper) as bus, containerd.serving():
        await resume(bus, keeper)
        bus.publish_again(address, "space", event(0), seq, WHEN)
        await eventually(partial(has_taken, containerd, 1))


async def test_events_that_go_on_for_ever_take_no_more_memory(tmp_path: Path) -> None:
    containerd, keeper = Containerd(tmp_path / "s"), KeptInMemory()
    address = str(containerd.path)
    async with running(keeper) as bus:
        for number in range(500):
            bus.publish(address, "space", event(number))
        large = os.fstat(keeper.kept[f"events:{address}"][0]).st_size
        async with containerd.serving():
            await eventually(lambda: bus.queued() == {address: 0})
            for number in range(500, 600):
                bus.publish(address, "space", event(number))
                await eventually(lambda: bus.queued() == {address: 0})
        assert os.fstat(keeper.kept[f"events:{address}"][0]).st_size < large // 4
    assert containerd.taken == [str(number) for number in range(600)]


async def test_without_memory_events_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    containerd, keeper = Containerd(tmp_path / "s"), KeptInMemory()
    address, real, short = str(containerd.path), os.posix_fallocate, True

    def fallocate(fd: int, offset: int, size: int) -> None:
        if short:
            raise OSError(12, "Cannot allocate memory")
        real(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    monkeypatch.setattr(forwarder, "_PAUSE", 0.01)
    async with running(keeper) as bus, containerd.serving():
        for number in range(20):
            bus.publish(address, "space", event(number))
        assert bus.queued() == {address: 20}
        assert bus.next_seq(address) == 21
        short = False
        await eventually(lambda: bus.queued() == {address: 0})
    assert containerd.taken == [str(number) for number in range(20)]


async def test_a_successor_without_memory_loses_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    containerd, keeper = Containerd(tmp_path / "s"), KeptInMemory()
    address, real, short = str(containerd.path), MemoryLog.open, True

    def no_memory(fd: int) -> MemoryLog:
        nonlocal short
        if short:
            short = False
            raise OSError(12, "Cannot allocate memory")
        return real(fd)

    def none_to_grow(_fd: int, _offset: int, _size: int) -> None:
        raise OSError(12, "Cannot allocate memory")

    async with running(keeper) as bus:
        for number in range(12):  # the log's half is full
            bus.publish(address, "space", event(number))
    monkeypatch.setattr(MemoryLog, "open", no_memory)
    monkeypatch.setattr(os, "posix_fallocate", none_to_grow)
    monkeypatch.setattr(shortage, "_PAUSE", 0.01)
    async with running(keeper) as bus, containerd.serving():
        await resume(bus, keeper)
        await eventually(lambda: bus.queued() == {address: 0})
    assert containerd.taken == [str(number) for number in range(12)]


async def test_stream_ids_that_are_used_up_want_another_connection(tmp_path: Path) -> None:
    containerd, keeper = Containerd(tmp_path / "s"), KeptInMemory()
    address = str(containerd.path)
    async with running(keeper) as bus, containerd.serving():
        for seq in ((1 << 31) - 1, 1 << 31, (1 << 31) + 1):
            bus.publish(address, "space", event(seq % 10), seq)
        await eventually(lambda: bus.queued() == {address: 0})
    assert containerd.taken == ["7", "8", "9"]
    assert stream_of(1 << 31) == 1


def of_no_event(log: MemoryLog) -> None:
    log.append(2, 1, b"no frame")


def of_another_number(log: MemoryLog) -> None:
    outbox = Outbox(log)
    outbox.append(1, Request("s", "m"))
    log.append(2, 2, log.data(outbox._place()))


@pytest.mark.parametrize("harm", [of_no_event, of_another_number])
async def test_an_outbox_that_makes_no_sense_costs_these_events(
    tmp_path: Path, harm: Callable[[MemoryLog], None], caplog: pytest.LogCaptureFixture
) -> None:
    containerd, keeper = Containerd(tmp_path / "s"), KeptInMemory()
    log = MemoryLog.create("test")
    harm(log)
    keeper.keep(f"events:{containerd.path}", [log.fd])
    log.close()
    async with running(keeper) as bus, containerd.serving():
        await resume(bus, keeper)
        assert "cannot be taken over, and are lost: an event is none" in caplog.text
        assert not keeper.kept
        bus.publish_again(str(containerd.path), "space", event(7), 7, WHEN)
        bus.publish_again(str(containerd.path), "space", event(5), 5, WHEN)
        assert bus.next_seq(str(containerd.path)) == 8
        bus.publish(str(containerd.path), "space", event(1))
        await eventually(lambda: containerd.taken == ["1"])


async def test_one_that_is_cancelled_before_it_has_begun_leaves_nothing_open(tmp_path: Path) -> None:
    containerd, keeper = Containerd(tmp_path / "s"), KeptInMemory()
    address = str(containerd.path)
    async with containerd.serving():
        async with running(keeper) as bus:
            bus.publish(address, "space", event(0))
            await eventually(lambda: bus.queued() == {address: 0})
        before = len(os.listdir("/proc/self/fd"))
        async with running(keeper) as bus:
            await resume(bus, keeper)
        assert len(os.listdir("/proc/self/fd")) == before


async def test_a_containerd_that_was_stopped_has_each_event_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forwarder, "_LATE", 0.05)
    containerd, keeper = Containerd(tmp_path / "s"), KeptInMemory()
    address = str(containerd.path)
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(address)
        stopped.listen()
        stopped.setblocking(False)
        async with running(keeper) as bus:
            for number in range(3):
                bus.publish(address, "space", event(number))
            await eventually(lambda: "has not answered an event within" in caplog.text)
            await anyio.sleep(0.2)
            async with await SocketListener.from_socket(stopped.dup()) as listener, containerd.serving(listener):
                await eventually(lambda: bus.queued() == {address: 0})
    assert containerd.taken == ["0", "1", "2"]


async def test_a_connection_that_cannot_be_gone_on_with_is_kept_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    containerd, keeper = Containerd(tmp_path / "s"), KeptInMemory()
    address = str(containerd.path)

    async def from_socket(_sock: socket.socket) -> UNIXSocketStream:
        raise ValueError("it is not connected")

    async with containerd.serving():
        async with running(keeper) as bus:
            bus.publish(address, "space", event(0))
            await eventually(lambda: bus.queued() == {address: 0})
        assert len(keeper.kept[f"events:{address}"]) == 2
        with monkeypatch.context() as patch:
            patch.setattr(UNIXSocketStream, "from_socket", from_socket)
            async with running(keeper) as bus:
                await resume(bus, keeper)
                assert len(keeper.kept[f"events:{address}"]) == 1
