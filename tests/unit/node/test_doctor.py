"""What ``shimd doctor`` finds of a node's containerd, whoever brings it."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import shimd
from shimd import keeper, zygote
from shimd.node import doctor

LISTENER = """\
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("flag", [["-c", "/x.toml"], ["--config", "/x.toml"], ["--config=/x.toml"], []])
def test_the_configuration_of_the_one_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: list[str]
) -> None:
    """k3s says -c, k0s --config=."""
    address = tmp_path / "containerd.sock"
    monkeypatch.setenv("CONTAINERD_ADDRESS", str(address))
    program = tmp_path / "listener.py"
    program.write_text(LISTENER)
    command = [sys.executable, str(program), str(address), *flag]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = doctor._containerd_command()
    assert found == [str(Path(sys.executable).resolve()), *flag]


def test_sockets() -> None:
    assert doctor._SOCKETS == (
        "/run/containerd/containerd.sock",
        "/run/k3s/containerd/containerd.sock",
        "/var/snap/microk8s/common/run/containerd.sock",
        "/run/k0s/containerd.sock",
    )


def test_ctr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the PATH, else where the distribution has it; k0s is one program for all."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "_brought", lambda: str(tmp_path / "brought"))
    assert doctor._ctr() == ["ctr"]
    executable(tmp_path / "k0s")
    assert doctor._ctr() == ["k0s", "ctr"]
    executable(tmp_path / "brought/ctr")
    assert doctor._ctr() == [str(tmp_path / "brought/ctr")]
    executable(tmp_path / "ctr")
    assert doctor._ctr() == [str(tmp_path / "ctr")]


def executable(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    path.chmod(0o755)


def test_an_installation_that_others_may_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    package = tmp_path / "shimd"
    package.mkdir()
    package.chmod(0o777)
    monkeypatch.setattr(shimd, "__file__", str(package / "__init__.py"))
    assert any(one.level == "warning" and str(package) in one.found for one in doctor._tree())


def test_parts_in_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "there"
    program.touch()
    monkeypatch.setattr(keeper, "program", lambda: program)
    monkeypatch.setattr(zygote, "PROGRAM", program)
    assert [one.level for one in doctor._parts_in_c()] == ["ok"]
    monkeypatch.setattr(zygote, "PROGRAM", tmp_path / "none")
    assert "no zygote" in next(doctor._parts_in_c()).found
    monkeypatch.setattr(keeper, "program", lambda: None)
    assert "no keeper" in next(doctor._parts_in_c()).found


@pytest.mark.parametrize(("limit", "level"), [(1024, "warning"), (1 << 16, "ok"), (-1, "ok")])
def test_descriptors(monkeypatch: pytest.MonkeyPatch, limit: int, level: str) -> None:
    monkeypatch.setattr(doctor, "daemon", lambda: None)
    monkeypatch.setattr(doctor, "_process", lambda: Path("/proc/self").resolve())
    monkeypatch.setattr(resource, "prlimit", lambda pid, what: (limit, limit))
    (found,) = doctor._descriptors()
    assert found.level == level and "containerd" in found.found


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def _broken_disk() -> Iterator[doctor.Finding]:
        yield doctor.Finding("before", "ok", "")
        raise OSError(errno.EIO, "Input/output error", "/x")

    monkeypatch.setattr(doctor, "_CHECKS", [_broken_disk])
    found = [(one.subject, one.level, one.found) for one in doctor.examine()]
    assert found == [("before", "ok", ""), ("broken disk", "problem", "cannot be looked at: /x: input/output error")]
