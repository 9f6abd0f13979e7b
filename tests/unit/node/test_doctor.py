"""What ``shimd doctor`` finds of a node's containerd, whoever brings it."""

import subprocess
import sys
from pathlib import Path

import pytest

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
