"""The first process of a pod, without containerd."""

import ctypes
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from shimd.oci import Spec
from shimd.protocol.plans import Pause
from shimd.supervisor.task import plans
from shimd.worker import pause
from tests.e2e.containerd import LAUNCHERS
from tests.unit.inside import reported

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
_IOPRIO_GET = 252 if os.uname().machine == "x86_64" else 31
PROGRAM = str(LAUNCHERS / "shimd-pause")


def plan(bundle: Path, program: str) -> Pause:
    spec: Spec = {"process": {"args": ["/pause"], "cwd": "/"}, "linux": {"namespaces": [{"type": "mount"}]}}
    return Pause(str(bundle), spec, [], None, terminal=False, program=program)


@contextmanager
def held(bundle: Path, program: str, process: Any = None, linux: Any = None) -> Iterator[int]:
    """A process that holds a pod, by its pid; it must have ended with the block."""
    whole: Any = plan(bundle, program)
    whole.spec["process"].update(process or {})
    whole.spec["linux"].update(linux or {})
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(pause.prepare(whole, lambda: None)())
        finally:
            os._exit(70)
    try:
        waiting(pid)
        yield pid
    finally:
        with suppress(ChildProcessError):  # a test that failed has not waited for it
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def io_priority(pid: int) -> int:
    return int(ctypes.CDLL(None).syscall(_IOPRIO_GET, 1, pid))


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


@pytest.mark.parametrize("program", [PROGRAM, ""], ids=["shimd-pause", "python"])
def test_it_is_treated_as_its_configuration_asks(tmp_path: Path, program: str) -> None:
    process = {
        "scheduler": {"policy": "SCHED_BATCH", "nice": 3},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 6},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 17, "hard": 19}],
    }
    with held(tmp_path, program, process, {"personality": {"domain": "LINUX32"}}) as pid:
        assert (os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid)) == (os.SCHED_BATCH, 3)
        assert io_priority(pid) == 3 << 13 | 6
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (17, 19)
        assert int(Path(f"/proc/{pid}/personality").read_text(), 16) & 0xFF == 8
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def test_what_is_unknown_is_named(tmp_path: Path) -> None:
    whole = plan(tmp_path, "")
    whole.spec["process"]["ioPriority"] = {"class": "BEST"}  # type: ignore[typeddict-unknown-key]
    said = reported(lambda: pause.prepare(whole, lambda: None))
    assert said == "InvalidArgument: process.ioPriority.class: BEST is not known"


def test_the_program_is_beside_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for argument, found in ((str(LAUNCHERS / "shimd"), PROGRAM), (str(tmp_path / "shimd"), "")):
        monkeypatch.setattr("sys.argv", [argument, "serve"])
        plans.pause_program.cache_clear()
        assert plans.pause_program() == found
    plans.pause_program.cache_clear()
