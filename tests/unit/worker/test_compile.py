"""What a compile worker, fed with anybody's bytes, cannot do."""

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shimd.errors import ResourceExhausted
from shimd.isolation.seccomp import worker_filter
from shimd.protocol.plans import Compilation
from shimd.worker import compile
from tests.unit.inside import inside

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give it up")


class Hostile:
    """An engine in which the attacker's code runs."""

    def __init__(self, attack: Callable[[Path], object]) -> None:
        self._attack = attack

    def precompile(self, wasm: bytes, artifact: Path) -> None:
        artifact.write_text(repr((wasm, self._attack(artifact))))


def attempt(directory: Path, attack: Callable[[Path], object], seccomp: str = "") -> str:
    """What the worker's end was: its error, or ``None``."""
    directory.mkdir(mode=0o700)
    wasm = os.memfd_create("wasm")
    os.pwrite(wasm, b"bytes", 0)

    def act() -> object:
        os.dup2(wasm, 0)
        engine: Any = Hostile(attack)
        plan = Compilation(str(directory / "artifact"), seccomp=seccomp)
        return compile.run(engine, plan)  # type: ignore[func-returns-value]

    try:
        return inside(act)
    finally:
        os.close(wasm)


def test_its_one_directory_is_its_own(tmp_path: Path) -> None:
    assert attempt(tmp_path / "out", lambda artifact: str(artifact)) == "None"
    assert (tmp_path / "out/artifact").read_text() == "(b'bytes', '/tmp/artifact')"


@pytest.mark.parametrize(
    "path",
    ["/etc/shimd-test", "/var/tmp/../lib/shimd-test", "/root/shimd-test", "/proc/sys/kernel/hostname",
     "/var/tmp/shimd-test", "/dev/shm/shimd-test", "/proc/self/oom_score_adj"],
)  # fmt: skip
def test_it_writes_nowhere_else(tmp_path: Path, path: str) -> None:
    said = attempt(tmp_path / "out", lambda _artifact: Path(path).write_text("1"))
    assert said.startswith(("PermissionError", "OSError: [Errno 30]")), said
    assert not Path(path).name.startswith("shimd-test") or not Path(path).exists()


def test_it_does_not_touch_what_another_one_makes(tmp_path: Path) -> None:
    """Compile workers are all the same user: what one writes becomes everybody's code."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:  # /tmp is the worker's own directory
        Path(name).chmod(0o711)
        other = Path(name, "tmp.other")
        other.mkdir()
        os.chown(other, 65534, 65534)
        said = attempt(tmp_path / "out", lambda _artifact: (other / "artifact").write_text("evil"))
        assert said.startswith("OSError: [Errno 30]"), said
        assert list(other.iterdir()) == []


def test_its_filter_is_in_force(tmp_path: Path) -> None:
    said = attempt(tmp_path / "out", lambda _artifact: os.execv("/bin/true", ["true"]), worker_filter({}))
    assert said.startswith("PermissionError")


def test_it_reads_no_secrets(tmp_path: Path) -> None:
    said = attempt(tmp_path / "out", lambda _artifact: Path("/etc/shadow").read_text())
    assert said.startswith("PermissionError")


def test_it_cannot_come_back(tmp_path: Path) -> None:
    assert attempt(tmp_path / "out", lambda _artifact: os.setuid(0)).startswith("PermissionError")


def test_it_has_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert "Network is unreachable" in attempt(tmp_path / "out", lambda _artifact: socket.socket().connect(address))


def test_its_memory_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIMD_COMPILE_MEMORY", str(1 << 30))
    said = attempt(tmp_path / "out", lambda _artifact: len(bytearray(2 << 30)))
    assert said.startswith(ResourceExhausted.__name__)
    assert "SHIMD_COMPILE_MEMORY" in said


def test_its_output_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIMD_COMPILE_OUTPUT", "1000")
    said = attempt(tmp_path / "out", lambda artifact: (artifact.parent / "more").write_bytes(b"x" * 5000))
    assert said.startswith(ResourceExhausted.__name__)
    assert "SHIMD_COMPILE_OUTPUT" in said
