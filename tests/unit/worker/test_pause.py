"""The first process of a pod, without containerd."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shimd.oci import Spec
from shimd.protocol.plans import Pause
from shimd.supervisor.task import plans
from shimd.worker import pause
from tests.e2e.containerd import LAUNCHERS
from tests.unit.inside import reported

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PROGRAM = str(LAUNCHERS / "shimd-pause")


def plan(bundle: Path, program: str) -> Pause:
    spec: Spec = {"process": {"args": ["/pause"], "cwd": "/"}, "linux": {"namespaces": [{"type": "mount"}]}}
    return Pause(str(bundle), spec, [], None, terminal=False, program=program)


@contextmanager
def held(bundle: Path, program: str) -> Iterator[int]:
    """A process that holds a pod, by its pid; it must have ended with the block."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(pause.prepare(plan(bundle, program), lambda: None)())
        finally:
            os._exit(70)
    waiting(pid)
    yield pid


def waiting(pid: int) -> None:
    """Until it sleeps in an empty root."""
    deadline = time.monotonic() + 20
    while os.listdir(f"/proc/{pid}/root") or "S (sleeping)" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_waits_for_its_hooks_in_its_namespaces(tmp_path: Path) -> None:
    own = os.readlink("/proc/self/ns/mnt")
    whole = plan(tmp_path, "")
    whole.spec["hooks"] = {"createRuntime": [{"path": "/bin/true"}]}
    waited: list[str] = []

    def prepare() -> object:
        pause.prepare(whole, lambda: waited.append(os.readlink("/proc/self/ns/mnt")))
        return len(waited) == 1 and waited[0] != own

    assert reported(prepare) == "True"


@pytest.mark.parametrize("program", [PROGRAM, ""], ids=["shimd-pause", "python"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_ends_with_zero_when_asked(tmp_path: Path, program: str, number: signal.Signals) -> None:
    with held(tmp_path, program) as pid:
        os.kill(pid, number)
        assert os.waitpid(pid, 0) == (pid, 0)


@pytest.mark.parametrize("program", [PROGRAM, ""], ids=["shimd-pause", "python"])
def test_other_signals_do_not_disturb_it(tmp_path: Path, program: str) -> None:
    with held(tmp_path, program) as pid:
        for number in (signal.SIGCHLD, signal.SIGSTOP, signal.SIGCONT):
            os.kill(pid, number)
        waiting(pid)
        os.kill(pid, signal.SIGTERM)
        assert os.waitpid(pid, 0) == (pid, 0)


def test_the_program_is_beside_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for argument, found in ((str(LAUNCHERS / "shimd"), PROGRAM), (str(tmp_path / "shimd"), "")):
        monkeypatch.setattr("sys.argv", [argument, "serve"])
        plans.pause_program.cache_clear()
        assert plans.pause_program() == found
    plans.pause_program.cache_clear()
