"""shimd.supervisor.notify, against real sockets and a real exec, as systemd would have it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shimd.supervisor import notify


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(5)
        yield sock


def test_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with manager(str(tmp_path / "notify")) as sock:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify.ready()
        notify.notify(STATUS="two tasks", WATCHDOG="1")
        assert sock.recv(100) == b"READY=1"
        assert sock.recv(100) == b"STATUS=two tasks\nWATCHDOG=1"


def test_abstract_name(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"shimd-test-{os.getpid()}"
    with manager(f"\0{name}") as sock:
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify.ready()
        assert sock.recv(100) == b"READY=1"


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify.ready()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify.ready()


def test_a_manager_that_does_not_read_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with manager(str(tmp_path / "notify")):
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        for _ in range(10_000):  # more than any queue holds
            notify.notify(WATCHDOG="1")


@pytest.mark.parametrize(
    ("variables", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_interval(variables: dict[str, str], interval: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert notify.watchdog_interval() == interval


#: Makes descriptors 3 and up of a pipe and becomes a program that has been given them; LISTEN_PID is the one thing
#: that only the process itself can know.
GIVEN = """
import json, os, sys
from shimd.supervisor import notify
os.environ["LISTEN_PID"] = sys.argv[1] or str(os.getpid())
first = notify.listen_fds()
inheritable = [os.get_inheritable(fd) for fd in first.values()]
left = [name for name in os.environ if name.startswith("LISTEN_")]
print(json.dumps([first, inheritable, left, notify.listen_fds()]))
"""


@pytest.mark.parametrize(
    ("pid", "variables", "fds"),
    [
        ("", {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "launch:status"}, {"launch": 3, "status": 4}),
        ("", {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "launch"}, {"launch": 3}),
        ("", {"LISTEN_FDS": "2"}, {"unknown": 4}),
        ("", {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "launch"}, {"launch": 3, "unknown": 4}),
        ("", {}, {}),
        ("", {"LISTEN_FDS": "two"}, {}),
        ("1", {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, {}),
    ],
)
def test_listen_fds(pid: str, variables: dict[str, str], fds: dict[str, int]) -> None:
    script = 'exec 3</dev/null 4</dev/null; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-c", GIVEN, pid],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **variables},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == [fds, [False] * len(fds), [], {}]
