"""The processes of shimd, found in /proc."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shimd.node import processes
from shimd.node.processes import Kind, kind_of, running


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("/opt/bin/python3 /opt/bin/shimd serve", Kind.DAEMON),
        ("/usr/local/bin/shimd serve", Kind.DAEMON),
        ("shimd-keeper", Kind.KEEPER),
        ("/opt/bin/shimd-keeper", Kind.KEEPER),
        ("/opt/bin/python3 -I -m shimd.forkserver.main a:B 1.0", Kind.FORK_SERVER),
        ("/opt/bin/python3 -I -m shimd.jailer.main", Kind.JAILER),
        ("shimd-zygote library 1", Kind.ZYGOTE),
        ("/opt/bin/python3 /opt/bin/shimd status", Kind.OTHER),
        ("vi shimd.forkserver.main", Kind.OTHER),
        ("python3 -m", Kind.OTHER),
        ("serve", Kind.OTHER),
    ],
)
def test_what_a_command_line_says(line: str, kind: Kind) -> None:
    assert kind_of(line.split()) is kind


#: Looks like a fork server, with a child.
FORKER = """
import os, sys, time
sys.stdout.flush()
read, write = os.pipe()  # which the child closes by becoming another program
if os.fork() == 0:
    os.execv("/bin/sleep", ["an app", "60"])
os.close(write)
os.read(read, 1)
print("forked", flush=True)
time.sleep(60)
"""


@pytest.fixture
def forker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[str]"]:
    package = tmp_path / "shimd" / "forkserver"
    package.mkdir(parents=True)
    (package / "main.py").write_text(FORKER)
    monkeypatch.setenv("SHIMD_RUNTIME_DIR", str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-S", "-m", "shimd.forkserver.main"],
        cwd=tmp_path,
        env={"SHIMD_RUNTIME_DIR": f"{tmp_path}/."},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "forked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    for one in processes.of(list(Kind)):
        os.kill(one.pid, signal.SIGKILL)


def test_those_of_a_runtime_directory_and_what_they_forked(
    forker: "subprocess.Popen[str]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {one.pid: one for one in running()}
    assert found[forker.pid].kind is Kind.FORK_SERVER
    (child,) = (one for one in found.values() if one.pid != forker.pid)
    assert (child.kind, child.parent) == (Kind.OTHER, forker.pid)
    monkeypatch.setenv("SHIMD_RUNTIME_DIR", str(tmp_path / "another"))
    assert running() == []


def test_all_are_ended(forker: "subprocess.Popen[str]") -> None:
    before = running()
    assert not processes.end(running, signal.SIGKILL, 10)
    assert not any(one.lives for one in before)


def test_what_does_not_end_is_told(forker: "subprocess.Popen[str]") -> None:
    left = processes.end(running, signal.SIGCONT, 0.05)
    assert {one.pid for one in left} >= {forker.pid}


def test_a_number_that_is_another_processes_now(forker: "subprocess.Popen[str]") -> None:
    (one,) = processes.of([Kind.FORK_SERVER])
    other = processes.Process(one.pid, one.start - 1, one.parent, one.kind)
    assert one.lives and not other.lives
    processes.send(other, signal.SIGKILL)
    assert forker.poll() is None
