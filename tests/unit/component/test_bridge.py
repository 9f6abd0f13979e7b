"""The end of a bridge where providers are, over a real socket: values, objects, cancellation, and what cannot be."""

import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shimd.component.bridge.server import LARGEST, VERSION, serve_connection
from shimd.component.bridge.values import pack, unpack
from shimd.component.objects import Objects
from shimd.component.results import Case, Err, Ok
from shimd.component.streams import Future, Stream
from shimd.wasi.waiting import wait_for

pytestmark = pytest.mark.anyio

HELLO, CALL, DROP, CANCEL, END, READ = range(6)
DONE, FAILED = range(2)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Book:
    def __init__(self, title: str) -> None:
        self.title, self.closed = title, threading.Event()

    def read(self) -> str:
        return self.title

    def close(self) -> None:
        self.closed.set()


class Shelf:
    """``acme:things/shelf``."""

    def __init__(self) -> None:
        self.Book = self.make
        self.books: list[Book] = []
        self.asked, self.made = threading.Event(), threading.Event()
        self.ended = threading.Event()

    def make(self, title: str) -> Book:
        self.books.append(Book(title))
        self.made.set()
        return self.books[-1]

    def same(self, value: Any) -> Any:
        return value

    def fail(self) -> None:
        raise Err(Case("refused", 7))

    def break_(self) -> None:
        raise RuntimeError("no shelf")

    def wait(self) -> None:
        self.asked.set()
        try:
            wait_for(anyio.sleep_forever)
        finally:
            self.ended.set()

    def late(self, title: str) -> Book:
        """Waits, and gives a book all the same."""
        self.asked.set()
        with suppress(Exception):
            wait_for(anyio.sleep_forever)
        return self.make(title)

    async def later(self, text: str) -> str:
        await anyio.lowlevel.checkpoint()
        return text.upper()

    async def never(self) -> None:
        self.asked.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.ended.set()

    def pages(self, count: int) -> Stream:
        self.pieces = Pieces([number] for number in range(count))
        return Stream(self.pieces)

    def endless(self) -> Stream:
        return Stream(iter(self.wait, None))

    def price(self) -> tuple[Future, Future]:
        return Future(self.fail), Future(self.after)

    async def after(self) -> int:
        await anyio.lowlevel.checkpoint()
        return 5

    def large(self) -> bytes:
        return bytes(LARGEST)


class Pieces(Iterator[list[int]]):
    def __init__(self, pieces: Iterator[list[int]]) -> None:
        self._pieces, self.closed = pieces, threading.Event()

    def __next__(self) -> list[int]:
        return next(self._pieces)

    def close(self) -> None:
        self.closed.set()


class Client:
    """What the native worker is, in a few lines."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self._stream = stream
        self._received = BufferedByteReceiveStream(stream)
        self._number = 0

    async def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        await self._stream.send(struct.pack(">IBI", 5 + len(payload), kind, number) + payload)

    async def begin(
        self, function: str, *arguments: bytes, guest: int = 1, interface: str = "acme:things/shelf"
    ) -> int:
        """Call; the arguments are packed."""
        name = f"{interface}#{function}".encode()
        self._number += 1
        payload = struct.pack(">IH", guest, len(name)) + name + bytes([0x90 + len(arguments)]) + b"".join(arguments)
        await self.send(CALL, self._number, payload)
        return self._number

    async def answer(self) -> tuple[int, int, bytes]:
        length, kind, number = struct.unpack(">IBI", await self._received.receive_exactly(9))
        return kind, number, await self._received.receive_exactly(length - 5)

    async def call(self, function: str, *arguments: bytes, guest: int = 1) -> bytes:
        number = await self.begin(function, *arguments, guest=guest)
        kind, of, payload = await self.answer()
        assert (kind, of) == (DONE, number), payload
        return payload

    async def read(self, object_: int, number: int = 1000) -> tuple[int, bytes]:
        await self.send(READ, number, struct.pack(">II", 1, object_))
        kind, of, payload = await self.answer()
        assert of == number
        return kind, payload

    async def drop(self, resource: int, guest: int = 1) -> None:
        await self.send(DROP, 0, struct.pack(">II", guest, resource))
        assert await self.answer() == (DONE, 0, b"\xc0")

    async def is_closed(self) -> bool:
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError, anyio.IncompleteRead)):
            await self._received.receive_exactly(1)
        return True


def text(value: str) -> bytes:
    return pack(value, _no_object)


def own(number: int) -> bytes:
    return b"\xd6\x06" + number.to_bytes(4)


def lent(number: int) -> bytes:
    return b"\xd6\x07" + number.to_bytes(4)


def _no_object(thing: object) -> int:
    raise AssertionError(f"an object: {thing}")


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@asynccontextmanager
async def connection(shelf: Shelf, hello: int = VERSION) -> AsyncIterator[Client]:
    ours, theirs = socket.socketpair()
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(serve_connection, theirs, lambda _name: {"acme:things/shelf": shelf})
        reader = await _stream(ours)
        stack.push_async_callback(reader.aclose)
        client = Client(reader)
        await client.send(HELLO, hello, b"app")
        yield client


async def _stream(sock: socket.socket) -> Any:
    import asyncio

    from anyio._backends._asyncio import SocketStream, StreamProtocol

    sock.setblocking(False)
    transport, protocol = await asyncio.get_running_loop().create_unix_connection(StreamProtocol, sock=sock)
    return SocketStream(transport, protocol)


@pytest.fixture
async def client(shelf: Shelf) -> AsyncIterator[Client]:
    async with connection(shelf) as made:
        yield made


#: Each with what a guest's end makes of it.
VALUES: list[tuple[Any, bytes]] = [
    ("text", b"\xa4text"),
    (1 << 63, b"\xcf\x80" + bytes(7)),
    (-1, b"\xff"),
    (None, b"\xc0"),
    (b"\0\xff", b"\xc4\x02\0\xff"),
    ([1, 2], b"\x92\x01\x02"),
    ({"a-field": True}, b"\x81\xa7a-field\xc3"),
    (("a", 1), b"\xc7\x04\x01\x92\xa1a\x01"),
    (Case("none"), b"\xc7\x06\x02\x91\xa4none"),
    (Case("some", 5), b"\xc7\x07\x02\x92\xa4some\x05"),
    (Ok(), b"\xd4\x03\xc0"),
    (Err(("a", 1)), b"\xc7\x07\x04\xc7\x04\x01\x92\xa1a\x01"),
    (frozenset({"bold"}), b"\xc7\x06\x05\x91\xa4bold"),
]


@pytest.mark.parametrize(("value", "packed"), VALUES)
def test_a_guests_value(value: Any, packed: bytes) -> None:
    read = unpack(packed, Objects())
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize(("value", "packed"), VALUES)
def test_an_answer_says_what_it_is_where_the_type_does_not(value: Any, packed: bytes) -> None:
    written = unpack(pack(value, _no_object), Objects())
    assert written == (list(value) if isinstance(value, frozenset) or type(value) is tuple else _plain(value))


def _plain(value: Any) -> Any:
    return Err(list(value.value)) if isinstance(value, Err) else value


def test_what_is_no_value_is_an_object() -> None:
    objects, book = Objects(), Book("a")
    assert pack([book, Ok(book)], objects.add) == b"\x92" + own(1) + b"\xc7\x06\x03" + own(2)
    assert unpack(lent(1), objects) is unpack(own(1), objects) is book
    with pytest.raises(ValueError, match="KeyError: 1"):
        unpack(own(1), objects)


def test_a_number_that_no_type_has() -> None:
    with pytest.raises(ValueError, match="out of range"):
        pack(1 << 64, _no_object)


@given(st.binary())
@example(b"\x92\xd6\x06")
@example(b"\xd4\x02\xc0")
@example(b"\x91" * 5000)
def test_no_bytes_are_more_than_wrong(data: bytes) -> None:
    with suppress(ValueError):
        unpack(data, Objects())


async def test_functions_objects_and_their_methods(client: Client, shelf: Shelf) -> None:
    assert await client.call("same", text("x")) == text("x")
    assert await client.call("[constructor]book", text("Emma")) == own(1)
    assert await client.call("[method]book.read", lent(1)) == text("Emma")
    assert await client.call("later", text("x")) == text("X")
    await client.drop(1)
    assert shelf.books[0].closed.is_set()


async def test_errors_of_the_interface_and_others(client: Client) -> None:
    assert unpack(await client.call("fail"), Objects()) == Err(Case("refused", 7))
    for function, reason in {
        "break": b"RuntimeError: no shelf",
        "missing": b"LookupError: it is not provided",
        "[method]book.write": b"UnsupportedFeature: Book has no write here",
        "large": b"its answer has 16777221 bytes, which is too much for a call",
    }.items():
        arguments = [lent(1)] if "book" in function else []
        assert await client.call("[constructor]book", text("Emma"))
        number = await client.begin(function, *arguments)
        assert await client.answer() == (FAILED, number, reason)
    number = await client.begin("same", interface="acme:things/others@1.0.0")
    assert await client.answer() == (FAILED, number, b"LookupError: it is not provided")


async def test_versions_of_an_interface_have_one_provider(client: Client) -> None:
    number = await client.begin("same", text("x"), interface="acme:things/shelf@1.2.3")
    assert await client.answer() == (DONE, number, text("x"))


@pytest.mark.parametrize("function", ["wait", "never"])
async def test_a_call_that_is_cancelled_ends_and_has_no_answer(client: Client, shelf: Shelf, function: str) -> None:
    number = await client.begin(function)
    await anyio.to_thread.run_sync(shelf.asked.wait)
    assert await client.call("same", text("meanwhile"))
    await client.send(CANCEL, number)
    await anyio.to_thread.run_sync(shelf.ended.wait)
    assert await client.call("same", text("x")) == text("x")


async def test_what_a_cancelled_call_made_is_closed(client: Client, shelf: Shelf) -> None:
    number = await client.begin("late", text("Emma"))
    await anyio.to_thread.run_sync(shelf.asked.wait)
    await client.send(CANCEL, number)
    await anyio.to_thread.run_sync(shelf.made.wait)
    await anyio.to_thread.run_sync(shelf.books[0].closed.wait)


async def test_a_guests_end_closes_what_it_has_when_its_calls_have_ended(client: Client, shelf: Shelf) -> None:
    await client.call("[constructor]book", text("Emma"), guest=1)
    await client.call("[constructor]book", text("Ulysses"), guest=2)
    number = await client.begin("wait", guest=1)
    await anyio.to_thread.run_sync(shelf.asked.wait)
    await client.send(END, 1)
    assert await client.call("same", text("x"), guest=2)
    assert not shelf.books[0].closed.is_set()
    await client.send(CANCEL, number)
    await anyio.to_thread.run_sync(shelf.books[0].closed.wait)
    assert not shelf.books[1].closed.is_set()


async def test_a_connections_end_ends_all(shelf: Shelf) -> None:
    async with connection(shelf) as client:
        await client.call("[constructor]book", text("Emma"))
        await client.begin("wait")
        await anyio.to_thread.run_sync(shelf.asked.wait)
    assert shelf.ended.is_set() and shelf.books[0].closed.is_set()


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack(">IBI", 4, CALL, 1),  # shorter than its head
        struct.pack(">IBI", LARGEST + 1, CALL, 1),
        struct.pack(">IBI", 5, 9, 1),  # of no kind
        struct.pack(">IBI", 5, HELLO, VERSION),  # a second one
        struct.pack(">IBI", 5, CALL, 1),  # without a guest
        struct.pack(">IBIIH", 11, CALL, 1, 1, 9),  # without a name
        struct.pack(">IBIIHB", 12, CALL, 1, 1, 0, 0x01),  # without a list of arguments
        struct.pack(">IBIIHB", 12, CALL, 1, 1, 0, 0xC1),  # no MessagePack
        struct.pack(">IBIIHB", 12, CALL, 1, 1, 0, 0x91),  # which breaks off
        struct.pack(">IBIIH", 18, CALL, 1, 1, 0) + b"\x91" + own(3),  # no such object
        struct.pack(">IBII", 9, DROP, 1, 1),
        struct.pack(">IBIII", 13, READ, 1, 1, 3),  # no such object
    ],
)
async def test_what_is_no_frame_ends_its_connection(
    client: Client, shelf: Shelf, frame: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    await client._stream.send(frame)
    assert await client.is_closed()
    assert capfd.readouterr().err.startswith("shimd: a connection from a guest is closed: a frame ")
    async with connection(shelf) as other:
        assert await other.call("same", text("x")) == text("x")


async def test_a_stream_is_read_piece_by_piece(client: Client, shelf: Shelf) -> None:
    assert await client.call("pages", b"\x02") == b"\xd6\x08" + (1).to_bytes(4)
    assert [await client.read(1) for _ in range(4)] == [
        (DONE, b"\x91\x00"),
        (DONE, b"\x91\x01"),
        (DONE, b"\x90"),  # the end, however often
        (DONE, b"\x90"),
    ]
    await client.drop(1)
    assert shelf.pieces.closed.is_set()


async def test_futures(client: Client) -> None:
    """By a function that fails, and by one that is ``async``."""
    first, second = (b"\xd6\x09" + number.to_bytes(4) for number in (1, 2))
    assert (await client.call("price")).endswith(b"\x92" + first + second)
    assert await client.read(1) == (DONE, pack(Err(Case("refused", 7)), _no_object))
    assert await client.read(2) == (DONE, b"\x05")


async def test_a_stream_that_is_dropped_while_it_is_read(client: Client, shelf: Shelf) -> None:
    await client.call("endless")
    await client.send(READ, 7, struct.pack(">II", 1, 1))
    await anyio.to_thread.run_sync(shelf.asked.wait)
    await client.send(CANCEL, 7)
    await client.drop(1)
    await anyio.to_thread.run_sync(shelf.ended.wait)


async def test_a_stream_of_a_guest_that_ends(client: Client, shelf: Shelf) -> None:
    await client.call("pages", b"\x02")
    await client.send(END, 1)
    await anyio.to_thread.run_sync(shelf.pieces.closed.wait)


async def test_another_version_is_refused(shelf: Shelf, capfd: pytest.CaptureFixture[str]) -> None:
    async with connection(shelf, hello=VERSION + 1) as client:
        assert await client.is_closed()
    assert "the wire has version 2 here, and 3 there" in capfd.readouterr().err


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(), hello=st.booleans())
async def test_garbage_ends_a_connection_and_nothing_else(data: bytes, hello: bool, anyio_backend: str) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        begin = struct.pack(">IBI", 5, HELLO, VERSION) if hello else b""
        ours.sendall(begin + data)
        ours.shutdown(socket.SHUT_WR)
        await serve_connection(theirs, lambda _name: {"acme:things/shelf": Shelf()})
