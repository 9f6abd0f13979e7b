"""Descriptors by name."""

import errno
import os
import random
import resource
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from shimd.protocol.constants import MAX_FDS
from shimd.protocol.keeper import MAX_NAME, VERSION, Kind
from tests.unit.keeper.rig import Process, Supervisor, close, until


def at_its_end(reading: int) -> bool:
    """Whether nobody has the other end of a pipe, of which nothing is to be read."""
    try:
        return os.read(reading, 1) == b""
    except BlockingIOError:
        return False


def limit(keeper: Process, descriptors: int) -> None:
    _, hard = resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (descriptors, hard))


def test_what_is_kept_outlives_the_supervisor(keeper: Process, pair: tuple[int, int]) -> None:
    reading, writing = pair
    child = os.fork()
    if child == 0:
        supervisor = keeper.connect()
        supervisor.say(Kind.KEEP, name="stdin:a", fds=[writing])
        os.kill(os.getpid(), 9)
    os.close(writing)
    assert os.waitpid(child, 0)[1] == 9
    with keeper.connect() as successor:
        assert not at_its_end(reading)
        names, _ = successor.list()
        os.write(names["stdin:a"][0], b"on it goes")
        close(names)
        assert os.read(reading, 100) == b"on it goes"
        successor.say(Kind.DROP, name="stdin:a")
        until(lambda: at_its_end(reading), "the keeper to close it")


def test_fifos_are_held_before_their_supervisor_has_opened_them(keeper: Process, tmp_path: Path) -> None:
    """Once there is a reader; and of what is read from the keeper is the writer that it lacks."""
    out, fed = (tmp_path / "out"), (tmp_path / "in")
    for path in (out, fed):
        os.mkfifo(path)
    paths = [os.open(path, os.O_PATH) for path in (fed, out)]
    with keeper.connect() as supervisor:
        supervisor.say(Kind.HOLD, 1, id=4, name="opened:a", fds=paths)
        assert supervisor.expect(Kind.HELD).numbers[0] == errno.ENXIO
        reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
        supervisor.say(Kind.HOLD, 1, id=5, name="opened:a", fds=paths)
        packet = supervisor.expect(Kind.HELD)
        assert (packet.id, packet.numbers[0]) == (5, 0)
    with keeper.connect() as successor:
        names, _ = successor.list()
        assert len(names["opened:a"]) == 2
        close(names)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        os.close(os.open(fed, os.O_WRONLY | os.O_NONBLOCK))  # somebody reads it
        successor.say(Kind.DROP, name="opened:a")
        until(lambda: at_its_end(reading=reader), "the keeper to close it")
    for fd in (*paths, reader):
        os.close(fd)


def test_what_cannot_be_held_leaves_what_was(keeper: Process, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out")
    reader = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
    paths = [os.open(path, os.O_PATH) for path in (tmp_path, tmp_path / "out")]
    with keeper.connect() as supervisor:
        supervisor.say(Kind.HOLD, 0, id=3, name="opened:a", fds=paths[1:])
        assert supervisor.expect(Kind.HELD).numbers[0] == 0
        supervisor.say(Kind.HOLD, 0, id=4, name="opened:a", fds=paths)
        assert supervisor.expect(Kind.HELD).numbers[0] == errno.EISDIR
        names, _ = supervisor.list()
        assert len(names["opened:a"]) == 1
        close(names)
        supervisor.say(Kind.HOLD, 7, id=5, name="none")
        assert supervisor.expect(Kind.HELD).numbers[0] == 0
    for fd in (*paths, reader):
        os.close(fd)


def test_a_connection_does_not_end_with_the_supervisor(keeper: Process) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs, keeper.connect() as supervisor:
            supervisor.say(Kind.KEEP, name="connection:1", fds=[theirs.fileno()])
        ours.sendall(b"a request")
        with keeper.connect() as successor:
            names, _ = successor.list()
            with socket.socket(fileno=names["connection:1"][0]) as connection:
                assert connection.recv(100) == b"a request"
                connection.sendall(b"its answer")
        assert ours.recv(100) == b"its answer"


def test_a_name_is_replaced(keeper: Process, pair: tuple[int, int]) -> None:
    reading, writing = pair
    with keeper.connect() as supervisor:
        supervisor.say(Kind.KEEP, name="a", fds=[writing])
        os.close(writing)
        assert not at_its_end(reading)
        supervisor.say(Kind.KEEP, name="a", fds=[0])
        until(lambda: at_its_end(reading), "the old one to be closed")
        assert supervisor.names() == {"a"}


def test_a_name_has_several_descriptors_or_none(keeper: Process) -> None:
    before = keeper.open()
    with keeper.connect() as supervisor:
        supervisor.say(Kind.KEEP, name="many", fds=[0] * MAX_FDS)
        supervisor.say(Kind.KEEP, name="none")
        supervisor.say(Kind.KEEP, name="n" * MAX_NAME, fds=[0, 1, 2])
        names, _ = supervisor.list()
        assert {name: len(fds) for name, fds in names.items()} == {"many": MAX_FDS, "none": 0, "n" * MAX_NAME: 3}
        close(names)
        for name in names:
            supervisor.say(Kind.DROP, name=name)
        assert supervisor.names() == set()
        assert keeper.open() == before


def test_hundreds_of_names_are_listed_whoever_reads_slowly(keeper: Process) -> None:
    wanted = {f"connection:{number}:{'x' * 150}" for number in range(800)}
    with keeper.connect() as supervisor:
        for name in wanted:
            supervisor.say(Kind.KEEP, name=name, fds=[0])
    with keeper.connect() as successor:
        successor.say(Kind.LIST)
        time.sleep(0.05)  # the socket fills
        names = set()
        while (packet := successor.hear())[0].kind is Kind.KEPT:
            close({"": packet[1]})
            names.add(packet[0].name)
        assert names == wanted
        for name in wanted:
            successor.say(Kind.DROP, name=name)
        assert successor.names() == set()


def test_the_name_of_what_there_is_no_room_for_is_told(keeper: Process) -> None:
    with keeper.connect() as supervisor:
        limit(keeper, keeper.open() + 2)
        supervisor.say(Kind.KEEP, name="fits", fds=[0, 0])
        supervisor.say(Kind.KEEP, name="does not", fds=[0, 0])
        assert supervisor.expect(Kind.FAILED).name == "does not"
        assert supervisor.names() == {"fits"}
    # A successor connects all the same, and a stranger does not keep it from that.
    with keeper.connect(hello=False), keeper.connect() as successor:
        assert successor.names() == {"fits"}
        assert successor.spawn(["/bin/true"]).kind is Kind.FAILED
        successor.say(Kind.DROP, name="fits")
        limit(keeper, 100)
        successor.say(Kind.KEEP, name="does not", fds=[0, 0])
        assert successor.names() == {"does not"}


def test_a_second_supervisor_is_refused_while_the_first_lives(keeper: Process) -> None:
    with keeper.connect() as first:
        with keeper.connect(hello=False) as second:
            assert second.hello().kind is Kind.FAILED
            with pytest.raises((EOFError, ConnectionError)):
                second.hear()
        first.say(Kind.KEEP, name="a", fds=[0])
        assert first.names() == {"a"}
    with keeper.connect() as second:
        assert second.names() == {"a"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_strangers_are_refused(keeper: Process) -> None:
    keeper.path.chmod(0o666)
    for directory in keeper.path.parents[:3]:
        directory.chmod(0o755)
    with keeper.connect() as supervisor:
        supervisor.say(Kind.KEEP, name="a", fds=[0])
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            with suppress(EOFError, ConnectionError):
                Supervisor(keeper.path)
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert supervisor.names() == {"a"}


def test_another_version_gets_what_there_is_and_no_more(keeper: Process) -> None:
    with keeper.connect() as supervisor:
        supervisor.say(Kind.KEEP, name="a", fds=[0])
    with keeper.connect(hello=False) as other:
        assert other.hello(version=VERSION + 1).numbers[:2] == (VERSION, keeper.pid)
        assert other.names() == {"a"}
        other.say(Kind.KEEP, name="b", fds=[0])
        with pytest.raises((EOFError, ConnectionError)):
            other.hear()
    with keeper.connect() as supervisor:
        assert supervisor.names() == {"a"}


@pytest.mark.parametrize("packet", [b"", b"x", b"x" * 39, bytes(40), b"\3" + b"\1" * 39, b"\2" + bytes(400)])
def test_what_makes_no_sense_ends_its_connection_only(keeper: Process, packet: bytes) -> None:
    with keeper.connect() as supervisor:
        supervisor.say(Kind.KEEP, name="a", fds=[0])
        supervisor.names()
        before = keeper.open()
        with keeper.connect(hello=False) as stranger:
            socket.send_fds(stranger.sock, [packet], [0, 0])
            with suppress(ConnectionError):
                while stranger.sock.recv(1000):
                    pass
        assert supervisor.names() == {"a"}
        assert keeper.open() == before
        socket.send_fds(supervisor.sock, [packet or b"y"], [0, 0])
        with suppress(ConnectionError, EOFError):
            while supervisor.hear():
                pass
    with keeper.connect() as successor:
        assert successor.names() == {"a"}


def test_nothing_that_is_said_ends_it(keeper: Process) -> None:
    chance = random.Random(13)
    kinds = [kind for kind in Kind if kind not in (Kind.QUIT,)]
    with keeper.connect() as supervisor:
        supervisor.say(Kind.KEEP, name="a", fds=[0])
        supervisor.names()
    before = keeper.open()
    for _ in range(300):
        with keeper.connect() as supervisor, suppress(ConnectionError):
            for _ in range(chance.randrange(20)):
                kind = chance.choice([*kinds, 0, 13, 1 << 31]).to_bytes(4, "little")
                data = kind + chance.randbytes(chance.choice([0, 3, 36, 40, 200, 291, 292, 9000]))
                socket.send_fds(supervisor.sock, [data], [chance.randrange(3)] * chance.randrange(4))
    with keeper.connect() as successor:
        for name in successor.names() - {"a"}:
            successor.say(Kind.DROP, name=name)
        assert "a" in successor.names()
        assert successor.hello().kind is Kind.HELLO
        assert keeper.open() <= before + 1
