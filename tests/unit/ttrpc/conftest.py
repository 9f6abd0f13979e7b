import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType

import anyio
import pytest

from shimd.ttrpc import Client, Limits, Server, Services
from shimd.ttrpc.testing import memory_pair
from tests.unit.ttrpc import ttrpc_support
from tests.unit.ttrpc.ttrpc_support import Connect, MakePair, Pair


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_test_hangs() -> Iterator[None]:
    """A broken protocol shows itself by waiting for ever."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the test hangs")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture(params=["memory", "unix"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakePair]:
    """Makes two joined byte streams, the client's first; closes what the test leaves open."""
    made: list[Pair] = []

    async def make() -> Pair:
        made.append(memory_pair() if request.param == "memory" else await ttrpc_support.socket_pair(tmp_path))
        return made[-1]

    yield make
    for near, far in made:
        await anyio.aclose_forcefully(near)
        await anyio.aclose_forcefully(far)


@pytest.fixture
def connect(pair: MakePair) -> Connect:
    """Runs a server on one end of a pair, and gives a client of the other."""

    @asynccontextmanager
    async def run(server: Server | Services, limits: Limits = Limits()) -> AsyncIterator[Client]:  # noqa: B008
        near, far = await pair()
        serving = server if isinstance(server, Server) else Server(server, limits)
        async with anyio.create_task_group() as group:
            group.start_soon(serving.serve_stream, far)
            async with Client(near, limits) as client:
                yield client

    return run
