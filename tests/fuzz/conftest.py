import signal
from collections.abc import Iterator
from types import FrameType

import pytest


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
