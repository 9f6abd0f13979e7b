"""A guest's sockets as its functions see them: numbers and a memory in, ``errno`` out, over real connections."""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from shimd.wasi.preview1 import abi, poll
from shimd.wasi.preview1.sockets import CONNECTIONS, Sockets

LISTENER = 3
AGAIN, FAULT, NOTSOCK = 6, abi.FAULT, 57
#: Where the tests have their things in the guest's memory.
OUT, VECTOR, DATA, ASKED, EVENTS = 0, 64, 1024, 2048, 4096


@dataclass
class Guest:
    sockets: Sockets
    memory: memoryview
    address: tuple[str, int]

    def call(self, name: str, *arguments: int) -> int:
        return self.sockets.call(name, self.memory, *arguments)

    def number(self, at: int = OUT) -> int:
        found: int = abi.U32.unpack_from(self.memory, at)[0]
        return found

    def accept(self, flags: int = 0) -> int:
        assert self.call("sock_accept", LISTENER, flags, OUT) == 0
        return self.number()

    def vector(self, *lengths: int) -> tuple[int, int]:
        """One buffer after the other, from DATA."""
        at = DATA
        for index, length in enumerate(lengths):
            struct.pack_into("<II", self.memory, VECTOR + index * 8, at, length)
            at += length
        return VECTOR, len(lengths)

    def read(self, fd: int, *lengths: int) -> tuple[int, bytes]:
        error = self.call("fd_read", fd, *self.vector(*lengths), OUT)
        return error, bytes(self.memory[DATA : DATA + self.number()]) if not error else b""

    def poll(self, *subscriptions: bytes) -> list[tuple[int, int, int, int, int]]:
        self.memory[ASKED : ASKED + 48 * len(subscriptions)] = b"".join(subscriptions)
        assert self.sockets.poll_oneoff(self.memory, ASKED, EVENTS, len(subscriptions), OUT) == 0
        return [abi.EVENT.unpack_from(self.memory, EVENTS + index * 32) for index in range(self.number())]


@pytest.fixture
def guest() -> Iterator[Guest]:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    sockets = Sockets([listener.detach()])
    yield Guest(sockets, memoryview(bytearray(8192)), address)
    for one in sockets._open.values():
        one.close()


@pytest.fixture
def client(guest: Guest) -> Iterator[socket.socket]:
    with socket.create_connection(guest.address, timeout=10) as client:
        yield client


def readable(fd: int, userdata: int = 1, kind: int = abi.EVENTTYPE_READ) -> bytes:
    return struct.pack("<QB7xI28x", userdata, kind, fd)


def clock(nanoseconds: int, userdata: int = 2, which: int = abi.CLOCK_MONOTONIC, flags: int = 0) -> bytes:
    return struct.pack("<QB7xI4xQQH6x", userdata, 0, which, nanoseconds, 0, flags)


def test_a_connection(guest: Guest, client: socket.socket) -> None:
    fd = guest.accept()
    assert fd == CONNECTIONS
    client.sendall(b"hello world")
    assert guest.read(fd, 4, 100) == (0, b"hello world"), "scattered"
    guest.memory[DATA : DATA + 5] = b"reply"
    assert guest.call("fd_write", fd, *guest.vector(3, 2), OUT) == 0
    assert (guest.number(), client.recv(10)) == (5, b"reply")
    client.shutdown(socket.SHUT_WR)
    assert guest.read(fd, 10) == (0, b"")
    assert guest.call("fd_close", fd) == 0
    assert client.recv(10) == b""
    assert guest.call("fd_close", fd) == abi.BADF


def test_receiving_with_flags(guest: Guest, client: socket.socket) -> None:
    fd = guest.accept()
    client.sendall(b"data")
    for flags in (abi.RIFLAGS_PEEK, abi.RIFLAGS_WAITALL):
        assert guest.call("sock_recv", fd, *guest.vector(4), flags, OUT, OUT + 4) == 0
        assert bytes(guest.memory[DATA : DATA + guest.number()]) == b"data"


def test_what_does_not_block(guest: Guest, client: socket.socket) -> None:
    fd = guest.accept(abi.FDFLAGS_NONBLOCK)
    assert guest.read(fd, 10)[0] == AGAIN
    assert guest.call("fd_fdstat_set_flags", LISTENER, abi.FDFLAGS_NONBLOCK) == 0
    assert guest.call("sock_accept", LISTENER, 0, OUT) == AGAIN
    assert guest.call("fd_fdstat_set_flags", fd, 1) == abi.INVAL
    for one in (LISTENER, fd):
        assert guest.call("fd_fdstat_get", one, OUT) == 0
        kind, flags, _rights, _inheriting = abi.FDSTAT.unpack_from(guest.memory, OUT)
        assert (kind, flags) == (abi.FILETYPE_SOCKET_STREAM, abi.FDFLAGS_NONBLOCK)


def test_a_peer_that_is_gone_is_an_error_and_no_signal(guest: Guest, client: socket.socket) -> None:
    fd = guest.accept()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert guest.read(fd, 10)[0] == 15, "ECONNRESET"
    assert guest.call("fd_write", fd, *guest.vector(10), OUT) == 64, "EPIPE"


def test_shutdown(guest: Guest, client: socket.socket) -> None:
    fd = guest.accept()
    assert guest.call("sock_shutdown", fd, 4) == abi.INVAL
    assert guest.call("sock_shutdown", fd, abi.SDFLAGS_WR) == 0
    assert client.recv(10) == b""


def test_renumbering(guest: Guest, client: socket.socket) -> None:
    fd = guest.accept()
    assert guest.call("fd_renumber", fd, 5) == abi.NOTSUP, "a file's number"
    assert guest.call("fd_renumber", fd, CONNECTIONS + 7) == abi.BADF
    assert guest.call("fd_renumber", fd, LISTENER) == 0
    client.sendall(b"x")
    assert guest.read(LISTENER, 10) == (0, b"x")
    assert guest.read(fd, 10)[0] == abi.BADF


def test_libraries_that_look_for_directories_go_on(guest: Guest, client: socket.socket) -> None:
    assert guest.call("fd_prestat_get", LISTENER, OUT) == 0
    assert guest.memory[OUT] == abi.PREOPEN_SOCKET != 0
    assert guest.call("fd_prestat_get", guest.accept(), OUT) == abi.BADF


@pytest.mark.parametrize(
    ("name", "expected"),
    [("fd_seek", abi.SPIPE), ("fd_pread", abi.SPIPE), ("path_open", abi.NOTDIR), ("fd_readdir", abi.NOTSUP)],
)
def test_what_sockets_are_not(guest: Guest, name: str, expected: int) -> None:
    assert guest.call(name, LISTENER, 0, 0, 0, 0) == expected
    assert guest.call(name, CONNECTIONS + 1, 0, 0, 0, 0) == abi.BADF


def test_pointers_out_of_the_memory(guest: Guest, client: socket.socket) -> None:
    size = len(guest.memory)
    assert guest.call("sock_accept", LISTENER, 0, size - 2) == FAULT
    fd = guest.accept()
    client.sendall(b"data")
    struct.pack_into("<II", guest.memory, VECTOR, size - 2, 4)
    assert guest.call("fd_read", fd, VECTOR, 1, OUT) == FAULT
    assert guest.call("fd_read", fd, size - 4, 1, OUT) == FAULT
    assert guest.call("fd_fdstat_get", fd, 0xFFFF_FFFF) == FAULT
    guest.memory[size - 2] = abi.EVENTTYPE_READ
    assert guest.sockets.poll_oneoff(guest.memory, size - 10, EVENTS, 1, OUT) == FAULT
    assert guest.read(fd, 10) == (0, b"data"), "nothing was lost"


def test_polling(guest: Guest, client: socket.socket) -> None:
    """A connection that comes, data, room for more, an end; a clock when nothing else happens."""
    assert [event[:3] for event in guest.poll(readable(LISTENER, 7), clock(10**12))] == [(7, 0, abi.EVENTTYPE_READ)]
    fd = guest.accept()
    assert [event[0] for event in guest.poll(readable(fd), clock(1000, 9))] == [9]
    assert [event[0] for event in guest.poll(readable(fd), readable(fd, 4, abi.EVENTTYPE_WRITE))] == [4]
    client.sendall(b"four")
    ((userdata, error, kind, size, flags),) = guest.poll(readable(fd, 5), clock(10**12))
    assert (userdata, error, kind, size, flags) == (5, 0, abi.EVENTTYPE_READ, 4, 0)
    client.close()
    guest.read(fd, 10)
    assert [event[0] for event in guest.poll(readable(fd, 6))] == [6]


def test_polling_by_the_time_of_day(guest: Guest) -> None:
    past = clock(1, 3, abi.CLOCK_REALTIME, abi.SUBCLOCK_ABSTIME)
    assert [event[0] for event in guest.poll(readable(LISTENER), past)] == [3]
    assert [event[1] for event in guest.poll(readable(LISTENER), clock(1, which=9))] == [abi.INVAL]


def test_files_are_always_ready(guest: Guest) -> None:
    assert [event[0] for event in guest.poll(readable(LISTENER, 1), readable(4, 2))] == [2]


def test_what_concerns_no_socket_is_the_engines(guest: Guest) -> None:
    guest.memory[ASKED : ASKED + 96] = readable(0) + clock(10**12)
    assert guest.sockets.poll_oneoff(guest.memory, ASKED, EVENTS, 2, OUT) == poll.FOREIGN
