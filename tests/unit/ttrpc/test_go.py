"""The Go implementation of ttrpc, containerd's own, against this one: each as client and as server.

Differential: what a client sees of our server must be, word for word, what it sees of the Go server. The Go program is
``go/main.go``; it is built from the published module.
"""

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import pytest

from shimd.ttrpc import Call, Client, Code, Method, Server, Services, StatusError, TtrpcError, frames, wire
from shimd.ttrpc.envelope import Response
from shimd.ttrpc.frames import FrameReader, FrameType
from shimd.ttrpc.testing import client_for
from tests.unit.ttrpc.ttrpc_support import request

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("go") is None, reason="no Go toolchain: the Go implementation cannot be built"),
]


def build(directory: Path, *options: str) -> Path:
    program = directory / "interop"
    subprocess.run(["go", "build", *options, "-o", program, "."], cwd=Path(__file__).parent / "go", check=True)
    return program


@pytest.fixture(scope="module")
def interop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("go"))


@pytest.fixture(scope="module")
def old_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client of ttrpc 1.1, as in containerd 1.6: unary calls."""
    return build(tmp_path_factory.mktemp("old"), "-modfile=unary.mod", "-tags=unary")


@contextmanager
def go_server(interop: Path, path: Path) -> Iterator[None]:
    with subprocess.Popen([interop, "server", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"listening\n"
        yield
        process.stdin.close()


@asynccontextmanager
async def our_server(path: Path) -> AsyncIterator[None]:
    server = Server(services())
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, await anyio.create_unix_listener(path))
        yield
        await server.shutdown(0)


def encode(value: str) -> bytes:
    """A google.protobuf.StringValue."""
    return wire.bytes_field(1, value.encode()) if value else b""


def decode(data: bytes) -> str:
    return "".join(wire.text(value) for _, value in wire.fields(data))


async def echo(call: Call, value: str) -> str:
    return f"{value} name={call.get('name') or ''} limited={'false' if call.deadline is None else 'true'}"


async def fail(call: Call, value: str) -> str:
    raise StatusError(Code.NOT_FOUND, "no such thing")


async def hang(call: Call, value: str) -> str:
    await anyio.sleep_forever()
    return ""


async def count(call: Call, value: str) -> AsyncIterator[str]:
    for word in value.split():
        yield word


async def total(call: Call, values: AsyncIterator[str]) -> str:
    return "+".join([value async for value in values])


async def double(call: Call, values: AsyncIterator[str]) -> AsyncIterator[str]:
    async for value in values:
        if value == "bad":
            raise StatusError(Code.ABORTED, "bad word")
        yield value * 2


def services() -> Services:
    return {
        "test.Test": {
            "Echo": Method.unary(echo, decode, encode),
            "Fail": Method.unary(fail, decode, encode),
            "Hang": Method.unary(hang, decode, encode),
            "Count": Method.server_stream(count, decode, encode),
            "Total": Method.client_stream(total, decode, encode),
            "Double": Method.bidirectional(double, decode, encode),
        }
    }


async def output_of_go_client(program: Path, path: Path) -> list[str]:
    result = await anyio.run_process([str(program), "client", str(path)], stderr=None)
    # At its deadline a call fails by the client's own clock or by the server's answer, whichever is first.
    output = result.stdout.decode().replace("rpc error: code = DeadlineExceeded desc = ", "")
    return output.splitlines()


async def test_the_go_client_sees_no_difference(interop: Path, tmp_path: Path) -> None:
    with go_server(interop, tmp_path / "go"):
        theirs = await output_of_go_client(interop, tmp_path / "go")
    async with our_server(tmp_path / "ours"):
        ours = await output_of_go_client(interop, tmp_path / "ours")
    assert ours == theirs
    assert len(ours) == 18
    assert ours[0] == 'test.Test/Echo(hello): "hello name= limited=false" <nil>'


async def test_the_old_go_client_sees_no_difference(interop: Path, old_client: Path, tmp_path: Path) -> None:
    with go_server(interop, tmp_path / "go"):
        theirs = await output_of_go_client(old_client, tmp_path / "go")
    async with our_server(tmp_path / "ours"):
        ours = await output_of_go_client(old_client, tmp_path / "ours")
    assert ours == theirs
    assert ours[0] == 'test.Test/Echo(hello): "hello name= limited=false" <nil>'
    assert ours[-1] == "concurrent: 100"


async def outcome(client: Client, method: str, value: str, **options: object) -> str:
    """What a unary call gives, in words."""
    service = str(options.pop("service", "test.Test"))
    try:
        return decode(await client.unary(service, method, encode(value), **options))  # type: ignore[arg-type]
    except StatusError as error:
        return str(error)


async def stream_outcome(client: Client, method: str, words: list[str], *, server_streaming: bool = True) -> list[str]:
    received = []
    try:
        async with await client.stream(
            "test.Test", method, client_streaming=True, server_streaming=server_streaming
        ) as stream:
            for word in words:
                await stream.send(encode(word))
            await stream.send_eof()
            async for message in stream:
                received.append(decode(message))
    except TtrpcError as error:
        received.append(str(error))
    return received


async def everything_our_client_can(client: Client) -> list[object]:
    async with await client.stream("test.Test", "Count", encode("one two three")) as stream:
        counted = [decode(message) async for message in stream]
    return [
        await outcome(client, "Echo", "hello"),
        await outcome(client, "Echo", ""),
        await outcome(client, "Echo", "named", metadata={"Name": "k8s.io"}),
        await outcome(client, "Echo", "limited", timeout=3600),
        await outcome(client, "Fail", ""),
        await outcome(client, "Nope", ""),
        await outcome(client, "Echo", "", service="test.Nope"),
        await outcome(client, "Hang", "", timeout=0.05),
        len(await outcome(client, "Echo", "x" * (frames.MAX_DATA - 100))),
        counted,
        await stream_outcome(client, "Total", ["a", "bc"], server_streaming=False),
        await stream_outcome(client, "Total", [], server_streaming=False),
        await stream_outcome(client, "Double", ["a", "", "bc"]),
        await stream_outcome(client, "Double", []),
        await stream_outcome(client, "Double", ["x", "bad"]),
        await stream_outcome(client, "Nope", []),
    ]


async def test_our_client_sees_no_difference(interop: Path, tmp_path: Path) -> None:
    with go_server(interop, tmp_path / "go"):
        async with Client(await anyio.connect_unix(tmp_path / "go")) as client:
            theirs = await everything_our_client_can(client)
    async with client_for(Server(services())) as client:
        ours = await everything_our_client_can(client)
    assert ours == theirs
    assert ours[:3] == ["hello name= limited=false", " name= limited=false", "named name=k8s.io limited=false"]


def first_status(path: Path, sent: bytes) -> tuple[int, int, str]:
    """Send bytes; the stream id, code and message of the first response."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(sent)
        reader = FrameReader()
        while (frame := reader.next()) is None:
            data = sock.recv(65536)
            assert data, "the connection was closed"
            reader.feed(data)
    assert isinstance(frame, frames.Frame)
    assert frame.type == FrameType.RESPONSE
    status = Response.decode(frame.data).status
    return frame.stream_id, status.code, status.message


DATA = frames.encode(FrameType.DATA, 0, 1, b"x")
HOSTILE = {
    "even id": request(2),
    "id zero": request(0),
    "id going down": request(5, "Hang") + request(3),
    "id in use": request(1, "Hang") + request(1),
    "data of no stream": DATA,
    "even id of an unknown type": frames.encode(9, 0, 2),
    "unknown types first": frames.encode(9, 0, 1) + frames.encode(FrameType.RESPONSE, 0, 1) + request(2),
    "data after the end": request(1, "Total", frames.REMOTE_OPEN)
    + frames.encode(FrameType.DATA, frames.REMOTE_CLOSED | frames.NO_DATA, 1) + DATA,
    "oversized": (frames.MAX_DATA + 1).to_bytes(4, "big") + b"\0\0\0\1\1\0" + bytes(frames.MAX_DATA + 1),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
async def test_broken_rules_get_the_same_answer(interop: Path, tmp_path: Path, name: str) -> None:
    with go_server(interop, tmp_path / "go"):
        theirs = first_status(tmp_path / "go", HOSTILE[name])
    async with our_server(tmp_path / "ours"):
        ours = await anyio.to_thread.run_sync(first_status, tmp_path / "ours", HOSTILE[name])
    stream_id, code, message = theirs
    assert ours[:2] == (stream_id, code)
    if name != "data after the end":  # Go's text names its own variable
        assert ours[2] == message
