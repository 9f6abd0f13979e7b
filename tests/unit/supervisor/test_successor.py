"""A daemon that has the one before it end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shimd import paths
from shimd.errors import AlreadyExists
from shimd.supervisor import ending, serve, successor
from shimd.supervisor.successor import VARIABLE, Successor

#: Has the lock of the pid file, and ends at a TERM unless it is told not to.
HOLDER = """
import fcntl, os, signal, sys, time
lock = open(sys.argv[1] + ".lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1] + ".pid", "w") as file:
    file.write(f"{os.getpid()}\\n")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in ("RUNTIME", "STATE", "CACHE"):
        monkeypatch.setenv(f"SHIMD_{kind}_DIR", str(tmp_path / kind.lower()))
    (tmp_path / "runtime").mkdir(mode=0o700)
    return tmp_path


@pytest.fixture
def holder(directory: Path, request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[str]"]:
    words = [str(paths.pid_file().with_suffix("")), getattr(request, "param", "hears"), "serve"]
    process = subprocess.Popen([sys.executable, "-c", HOLDER, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_it_is_one_if_it_was_started_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is no child of its own."""
    assert Successor.wanted() is None
    monkeypatch.setenv(VARIABLE, "yes")
    assert Successor.wanted() is not None
    assert VARIABLE not in os.environ
    assert Successor.wanted() is None


def test_any_other_waits_and_gives_up(holder: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_PATIENCE", 0.1)
    with pytest.raises(AlreadyExists, match=f"pid {holder.pid}: end that one first"), serve._only_one():
        pass
    assert holder.poll() is None


@pytest.mark.parametrize("holder", ["hears", "deaf"], indirect=True)
def test_the_one_before_it_ends(holder: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "LIMIT", -1.9)
    monkeypatch.setenv(VARIABLE, "yes")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with serve._only_one():
        assert int(paths.pid_file().read_text()) == os.getpid()
        assert holder.wait(10) in (-signal.SIGTERM, -signal.SIGKILL)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.parametrize("text", ["", "nonsense", "1\n", "999999999\n"])
def test_a_pid_file_that_names_no_daemon(text: str) -> None:
    """Whoever has the lock has not written it yet."""
    paths.pid_file().write_text(text)
    assert successor.holder() == 0
    Successor().press()


def test_it_asks_once(holder: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(successor, "_tell", lambda _pid, number: sent.append(number))
    one = Successor()
    for _ in range(3):
        one.press()
    assert sent == [signal.SIGTERM]
    later = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: later)
    one.press()
    assert sent == [signal.SIGTERM, signal.SIGKILL]
