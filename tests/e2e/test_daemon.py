"""The one daemon behind all launchers: started when needed, only once, and replaced when it dies."""

import os
import signal
import subprocess
from contextlib import suppress

import pytest

from tests.e2e import leftovers
from tests.e2e.box import Attached, Box, ours_only, until
from tests.e2e.conftest import BoxMaker

pytestmark = ours_only


@pytest.fixture
def quiet_box(own_box: Box) -> Box:
    """A box whose containerd has no shimd yet."""
    assert own_box.containerd.daemon_pid() is None
    return own_box


def daemons(box: Box) -> list[int]:
    processes = leftovers.processes_of(box.containerd.directory)
    return [pid for pid, line in processes.items() if line.endswith("shimd serve")]


def stopped(box: Box) -> bool:
    """Whether there is none. One is asked to stop first, each time: while a connection of the last app's containerd is
    open, or an event is on its way, the next daemon follows at once."""
    box.containerd.stop_daemon()
    return not daemons(box) and box.containerd.daemon_pid() is None


def test_started_on_demand(quiet_box: Box) -> None:
    assert quiet_box.run("app").code == 0
    assert daemons(quiet_box) == [quiet_box.containerd.daemon_pid()]


def test_many_launchers_start_one(quiet_box: Box) -> None:
    clients = [quiet_box.run_attached(f"app{number}", "exit", number, flags=("--rm",)) for number in range(8)]
    assert [client.wait(60) for client in clients] == list(range(8))
    assert len(daemons(quiet_box)) == 1


def test_stays_between_apps(quiet_box: Box) -> None:
    quiet_box.run("one")
    first = daemons(quiet_box)
    quiet_box.run("two")
    assert daemons(quiet_box) == first


def test_stops_on_term_and_comes_back(quiet_box: Box) -> None:
    quiet_box.run("one")
    first = daemons(quiet_box)
    until(lambda: stopped(quiet_box), "the daemon to stop")
    assert quiet_box.run("two").code == 0
    assert daemons(quiet_box) not in ([], first)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ends_while_an_app_is_made(quiet_box: Box, number: signal.Signals) -> None:
    """It goes on if it was made; else it is made anew, and the worker, which we hold up, ends."""
    quiet_box.run("one")
    (daemon,), directory = daemons(quiet_box), quiet_box.containerd.directory
    (keeper,) = (pid for pid, line in leftovers.processes_of(directory).items() if "shimd-keeper" in line)
    makers = descendants(keeper) - {daemon}  # fork server and zygote
    while not (
        worker := held_up(makers, client := quiet_box.run_attached("two", flags=("--rm",), stdout=subprocess.PIPE))
    ):
        continue  # it was over before we saw its worker
    os.kill(daemon, number)
    until(lambda: daemons(quiet_box) not in ([], [daemon]), "the next daemon")
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGCONT)
    assert client.communicate()[0] == "hello from app\n"
    assert client.returncode == 0
    assert not leftovers.settled(quiet_box.leftovers)


def descendants(pid: int) -> set[int]:
    children = leftovers.children_of(pid)
    return {*children}.union(*map(descendants, children))


def held_up(makers: set[int], client: Attached) -> int | None:
    """Stop their new child as soon as there is one; none if none was seen."""
    while client.poll() is None:
        for maker in makers:
            with suppress(OSError):
                for pid in {*leftovers.children_of(maker)} - makers:
                    os.kill(pid, signal.SIGSTOP)
                    return pid
    return None


def test_both_engines_in_one(quiet_box: Box) -> None:
    for engine in ("wasmtime", "wasmer"):
        done = quiet_box.ctr(
            "run", "--rm", "--runtime", f"io.containerd.{engine}.v1", quiet_box.runtime.image, f"app-{engine}"
        )
        assert done.out == "hello from app\n"
    assert len(daemons(quiet_box)) == 1


def test_same_id_in_two_namespaces(quiet_box: Box, new_box: BoxMaker) -> None:
    """containerd 1.6 names no namespace in its calls."""
    other = new_box(quiet_box.containerd, quiet_box.runtime)
    quiet_box.detach("app", "sleep", 600)
    other.detach("app", "sleep", 600)
    assert quiet_box.pid("app") != other.pid("app")
    other.kill("app")
    other.wait_status("app", "STOPPED")
    assert quiet_box.status("app") == "RUNNING"
    assert len(daemons(quiet_box)) == 1


def test_files_are_not_for_others(quiet_box: Box) -> None:
    quiet_box.run("app")
    sockets = [path for path in (quiet_box.containerd.directory / "shimd").rglob("*") if path.is_socket()]
    assert sockets
    assert {path.stat().st_mode & 0o077 for path in sockets} == {0}
