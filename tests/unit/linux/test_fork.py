"""The fork into a cgroup and a pid namespace, with the real kernel."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from shimd.cgroup import layout
from shimd.linux import fork as fork_module
from shimd.linux import namespaces
from shimd.linux.namespaces import fork_into
from tests.unit.inside import reported

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def in_child(which: str | None, cgroup: str | None, report: Callable[[], str]) -> str:
    """What ``report`` says in a child of :func:`fork_into`."""
    return reported(report, partial(fork_into, which, cgroup))


def no_clone3(_flags: int = 0, _cgroup: int | None = None) -> int:
    """An old kernel's answer."""
    raise OSError(errno.ENOSYS, "not here")


@pytest.fixture(params=["clone3", "steps"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to fork."""
    if request.param == "steps":
        monkeypatch.setattr(namespaces, "fork", no_clone3)
    return str(request.param)


@pytest.fixture
def unified() -> Iterator[Path]:
    root = layout.current().unified
    if root is None:
        pytest.skip("no version 2 hierarchy here")
    directory = Path(root, f"shimd-test-{os.getpid()}")
    directory.mkdir()
    yield directory
    directory.rmdir()


def test_child_is_born_in_the_cgroup(way: str, unified: Path) -> None:
    said = in_child(None, str(unified), lambda: Path("/proc/self/cgroup").read_text())
    assert any(line.startswith("0::") and line.endswith(f"/{unified.name}") for line in said.splitlines())


def test_child_is_the_first_of_its_pid_namespace_and_the_parent_stays(way: str) -> None:
    before = os.readlink("/proc/self/ns/pid_for_children")
    assert in_child("new", None, lambda: str(os.getpid())) == "1"
    assert os.readlink("/proc/self/ns/pid_for_children") == before


def test_child_joins_a_pid_namespace(way: str) -> None:
    first = fork_into("new")
    if first == 0:
        signal.pause()
        os._exit(0)
    try:
        assert in_child(f"/proc/{first}/ns/pid", None, lambda: str(os.getpid())) == "2"
        assert in_child(None, None, lambda: str(os.getppid())) == str(os.getpid())
    finally:
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)


def test_both_at_once(way: str, unified: Path) -> None:
    said = in_child("new", str(unified), lambda: f"{os.getpid()} {unified.joinpath('cgroup.procs').read_text()!r}")
    pid, members = said.split(" ", 1)
    assert pid == "1"
    assert members != repr("")


def test_the_c_library_knows_the_child(unified: Path) -> None:
    """The thread id that it keeps for locks and signals to itself is the child's, not the parent's."""
    assert in_child(None, str(unified), lambda: str(_thread_id_kept() == os.getpid())) == "True"


def _thread_id_kept() -> int:
    import ctypes

    return ctypes.c_int.from_address(fork_module._thread_id_address()).value


def test_a_cgroup_that_is_not_there(way: str, tmp_path: Path) -> None:
    children = os.listdir("/proc/self/task")
    with pytest.raises(FileNotFoundError):
        if fork_into(None, str(tmp_path / "nowhere")) == 0:
            os._exit(0)
    assert os.listdir("/proc/self/task") == children


def test_a_child_that_cannot_move_ends_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error must not run through what called fork_into: that is the fork server's loop, a second time."""
    monkeypatch.setattr(namespaces, "fork", no_clone3)
    pid = -1
    try:
        pid = fork_into(None, str(tmp_path))  # a directory, and no cgroup
    except OSError:
        os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
