"""The launchers' socket: whoever connects, whatever they say, the daemon answers in one line and lives."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from shimd.engines.registry import engine_names
from shimd.supervisor.launch_socket import LaunchServer
from shimd.supervisor.sockets import unix_listener
from shimd.supervisor.supervisor import Supervisor
from tests.unit.short import no_descriptors

pytestmark = pytest.mark.anyio
INSTALLED = ", ".join(engine_names())


@pytest.fixture
async def socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    for name in ("RUNTIME", "STATE", "CACHE"):
        monkeypatch.setenv(f"SHIMD_{name}_DIR", str(tmp_path))
    path = tmp_path / "launch.sock"
    with anyio.fail_after(30):
        async with await unix_listener(path) as listener, anyio.create_task_group() as tasks:
            tasks.start_soon(LaunchServer(Supervisor(tasks, tasks)).serve, listener)
            yield path
            tasks.cancel_scope.cancel()


async def ask(socket: Path, *words: str) -> str:
    return await ask_bytes(socket, "\0".join(words).encode())


async def ask_bytes(socket: Path, data: bytes) -> str:
    async with await anyio.connect_unix(socket) as stream:
        await stream.send(data)
        await stream.send_eof()
        said = b""
        try:
            while True:
                said += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return said.decode()


async def test_one_address_for_an_engine_containerd_and_namespace(socket: Path) -> None:
    first = await ask(socket, "start", "wasmtime", "space", "/ttrpc", "/grpc", "one", "/bundle")
    assert first.startswith("ok unix://")
    path = Path(first.removeprefix("ok unix://"))
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o600
    assert await ask(socket, "start", "wasmtime", "space", "/ttrpc", "/grpc", "two", "/bundle") == first
    for other in (("wasmer", "space", "/ttrpc"), ("wasmtime", "other", "/ttrpc"), ("wasmtime", "space", "/other")):
        assert await ask(socket, "start", *other, "/grpc", "one", "/bundle") not in (first, "")


async def test_many_at_once_get_the_same(socket: Path) -> None:
    answers: set[str] = set()

    async def start(number: int) -> None:
        answers.add(await ask(socket, "start", "wasmtime", "space", "/ttrpc", "/grpc", str(number), "/bundle"))

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(start, number)
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("start",), "error not a launcher's request"),
        (("explode", "wasmtime", "n", "", "", "i", "b"), "error not a launcher's request"),
        (("start", "lua", "n", "", "", "i", "b"), f"error engine lua is not installed; installed are {INSTALLED}"),
        (("delete", "wasmtime", "n", "", "", "nobody", "b"), "error container nobody does not exist"),
    ],
)
async def test_requests_that_cannot_be_met(socket: Path, words: tuple[str, ...], sentence: str) -> None:
    assert await ask(socket, *words) == sentence


@pytest.mark.parametrize("data", [b"", b"\xff\xfe" * 100, b"\0" * 1000, b"x" * (1 << 20)])
async def test_garbage(socket: Path, data: bytes) -> None:
    said = await ask_bytes(socket, data) if len(data) < 1 << 20 else await _flood(socket, data)
    assert said in ("error not a launcher's request", "")
    assert (await ask(socket, "start", "wasmtime", "n", "", "", "i", "b")).startswith("ok ")


async def _flood(socket: Path, data: bytes) -> str:
    try:
        return await ask_bytes(socket, data)
    except (anyio.BrokenResourceError, OSError):
        return ""


async def test_one_that_hangs_up_stops_no_other(socket: Path) -> None:
    for _ in range(5):
        async with await anyio.connect_unix(socket) as stream:
            await stream.send(b"start\0was")
    async with await anyio.connect_unix(socket):  # and one that says nothing
        assert (await ask(socket, "start", "wasmtime", "n", "", "", "i", "b")).startswith("ok ")


async def test_an_endpoint_that_cannot_listen_is_one_error(socket: Path, tmp_path: Path) -> None:
    """Of who asked for it. The daemon goes on, and serves it when it can."""
    (tmp_path / "s").write_text("no directory")
    words = ("start", "wasmtime", "space", "/ttrpc", "/grpc", "one", "/bundle")
    assert await ask(socket, *words) == f"error {tmp_path}/s: file exists"
    (tmp_path / "s").unlink()
    assert (await ask(socket, *words)).startswith("ok unix://")


async def test_few_descriptors_are_kept_for_those_that_run(socket: Path) -> None:
    words = ("start", "wasmtime", "space", "/ttrpc", "/grpc", "one", "/bundle")
    assert (await ask(socket, *words)).startswith("ok ")
    with no_descriptors(left=4):
        said = await ask(socket, *words)
    assert said.startswith("error nearly all of the ") and "LimitNOFILE=" in said
    assert (await ask(socket, *words)).startswith("ok ")
