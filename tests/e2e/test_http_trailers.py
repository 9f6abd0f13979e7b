"""Trailers of servers, from and to clients: gRPC by a real client, and HTTP/1.1. On wasmtime's native host."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from grpclib import GRPCError, Status
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.encoding.base import CodecBase
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded, TrailersReceived

from tests.components import rust
from tests.components.build import newer
from tests.e2e.http_app import App, running
from tests.wasmtimes import native_only

pytestmark = native_only


@pytest.fixture(scope="module", params=["0.2", "0.3"])
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    program = rust.component("server") if request.param == "0.2" else newer()
    with running(program, tmp_path_factory.mktemp("app") / "log") as app:
        yield app


class Numbers(CodecBase):
    """Messages are numbers of four bytes."""

    __content_subtype__ = "proto"  # the name that answers without one have

    def encode(self, message: int, message_type: type[int]) -> bytes:
        return message.to_bytes(4)

    def decode(self, data: bytes, message_type: type[int]) -> int:
        return int.from_bytes(data)


def channel(app: App) -> Channel:
    host, _, port = app.address.rpartition(":")
    return Channel(host, int(port), codec=Numbers())


def test_a_call(app: App) -> None:
    async def call() -> list[int]:
        with closing(channel(app)) as to:
            double = UnaryUnaryMethod(to, "/test.Numbers/Double", int, int)
            return list(await asyncio.gather(*[double(number, timeout=30) for number in (1, 21, 40)]))

    assert asyncio.run(call()) == [2, 42, 80]


def test_a_call_that_fails(app: App) -> None:
    async def call() -> None:
        with closing(channel(app)) as to:
            await UnaryUnaryMethod(to, "/test.Numbers/Double", int, int)(13, timeout=30)

    with pytest.raises(GRPCError) as caught:
        asyncio.run(call())
    assert (caught.value.status, caught.value.message) == (Status.FAILED_PRECONDITION, "unlucky")


def test_a_stream(app: App) -> None:
    async def call() -> list[int]:
        with closing(channel(app)) as to:
            return await UnaryStreamMethod(to, "/test.Numbers/Count", int, int)(5, timeout=30)

    assert asyncio.run(call()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("wanted", [True, False])
def test_of_http_1(app: App, wanted: bool) -> None:
    """They go to a client that says that it takes them (RFC 9110, section 6.5.1)."""
    te = "TE: trailers\r\n" if wanted else ""
    request = f"POST /trailers HTTP/1.1\r\nHost: x\r\n{te}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    host, _, port = app.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(f"{request}4\r\nbody\r\n0\r\nx-sum: 7\r\n\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert b"4\r\nbody\r\n0\r\n" in answer
    assert answer.endswith(b"0\r\nx-back-x-sum: 7\r\n\r\n" if wanted else b"0\r\n\r\n"), answer


def test_of_http_2(app: App) -> None:
    """A request's trailers reach the guest, and the answer's the client."""
    ended = asyncio.run(send_trailers(app))
    assert (b"x-back-x-sum", b"7") in ended


async def send_trailers(app: App) -> list[tuple[bytes, bytes]]:
    """Returns the answer's."""
    host, _, port = app.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    connection = H2Connection(H2Configuration(header_encoding=None))
    connection.initiate_connection()
    about = [(":method", "POST"), (":path", "/trailers"), (":scheme", "http"), (":authority", app.address)]
    connection.send_headers(1, about)
    connection.send_data(1, b"body")
    connection.send_headers(1, [("x-sum", "7")], end_stream=True)
    came: list[tuple[bytes, bytes]] = []
    ended = False
    while not ended:
        writer.write(connection.data_to_send())
        data = await asyncio.wait_for(reader.read(65536), 30)
        assert data, "the connection is closed"
        for event in connection.receive_data(data):
            if isinstance(event, TrailersReceived):
                came = list(event.headers)
            ended = ended or isinstance(event, StreamEnded)
    writer.close()
    return came
