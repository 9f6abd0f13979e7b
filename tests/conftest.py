"""For all tests."""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest


def _stay(number: int, frame: FrameType | None) -> None:
    """As if the signal were ignored."""


def be_as_at_a_terminal() -> None:
    """Let what tests start have the default action for signals that this process was told to ignore.

    ``nohup`` ignores SIGHUP, and a shell SIGINT and SIGQUIT of what it starts in the background. That is inherited by
    programs, as a handler is not: those that a test ends by such a signal would go on for ever.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _stay)


be_as_at_a_terminal()


@pytest.fixture(autouse=True)
def _no_signal_stays_blocked() -> Iterator[None]:
    """What the next tests start would not hear it, and whoever waits for its end would wait for ever."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    left = signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert left == before
