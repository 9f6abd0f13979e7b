"""Native containers under a Wasm runtime's name: what is not said by the whole suite being run on them, too."""

import os
import signal
from pathlib import Path

import pytest

from tests.e2e import guests, images, leftovers
from tests.e2e.box import RUNTIMES, Box, content, until
from tests.e2e.conftest import BoxMaker
from tests.e2e.containerd import Containerd

#: The reference and ours, which must fail alike.
native_only = pytest.mark.parametrize("runtime", RUNTIMES[:2], ids=lambda runtime: runtime.name, indirect=True)
IMAGE = "test.invalid/odd:1"


@pytest.fixture
def odd(box: Box, tmp_path: Path, programs: tuple[bytes, bytes]) -> Box:
    native, _wasm = programs
    files = {
        "/garbage": b"\x7fELF" + b"garbage " * 100,
        "/script": b"#!/app echo\n",
        "/orphan": b"#!/nowhere\n",
        "/app": native,
        "/misnamed.wasm": native,
    }
    contents = images.layer(files, guests.DIRECTORIES)
    images.save(tmp_path / "odd.tar", [images.image(IMAGE, [contents], {"Env": ["PATH=/"]})])
    box.containerd.import_image(tmp_path / "odd.tar", box.namespace)
    return box


def run(box: Box, program: str) -> tuple[int, str, str]:
    done = box.ctr("run", "--rm", "--runtime", box.runtime.type, IMAGE, "app", program, check=False)
    return done.code, done.out, done.err


@native_only
def test_a_script(odd: Box) -> None:
    assert run(odd, "/script") == (0, "/script\n", "")


@native_only
def test_a_name_means_nothing(odd: Box) -> None:
    assert run(odd, "/misnamed.wasm")[:2] == (0, "hello from app\n")


@native_only
@pytest.mark.parametrize("program", ["/garbage", "/orphan"])
def test_one_that_cannot_be_executed(odd: Box, program: str) -> None:
    code, out, error = run(odd, program)
    assert code != 0
    assert out == ""
    assert program in error
    odd.remove("app")
    assert not odd.leftovers()


def test_without_a_native_runtime(own_containerd: Containerd, new_box: BoxMaker) -> None:
    """A sentence that says what is missing; nothing is left, and Wasm runs."""
    own_containerd.env["SHIMD_RUNC"] = "/nowhere/runc"
    own_containerd.restart()
    box = new_box(own_containerd, RUNTIMES[1])
    done = box.run("app")
    assert done.code != 0
    assert "there is no /nowhere/runc on this node" in done.err
    box.remove("app")
    assert not box.leftovers()
    assert new_box(own_containerd, RUNTIMES[2]).run("wasm").code == 0


def test_exits_while_the_daemon_is_busy(containerd: Containerd, new_box: BoxMaker) -> None:
    """Many short ones at once: none's exit is lost between runc's end and our look at its child."""
    box = new_box(containerd, RUNTIMES[1])
    clients = [box.run_attached(f"app{number}", "exit", number, flags=("--rm",)) for number in range(24)]
    assert [client.wait(60) for client in clients] == list(range(24))


def test_a_fork_server_that_dies(own_containerd: Containerd, new_box: BoxMaker) -> None:
    """Its native containers go on, and their end is still told."""
    box = new_box(own_containerd, RUNTIMES[1])
    output = box.detach("app", "tick")
    processes = leftovers.processes_of(own_containerd.directory)
    (server,) = [pid for pid, line in processes.items() if "shimd.worker.forkserver" in line]
    os.kill(server, signal.SIGKILL)
    seen = len(content(output))
    until(lambda: len(content(output)) > seen, "more ticks")
    box.kill("app")
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 137
    assert box.run("next").code == 0


def test_a_daemon_that_dies(own_containerd: Containerd, new_box: BoxMaker) -> None:
    """The launcher cleans up for it: what runc keeps is gone, too, and the name is free again."""
    box = new_box(own_containerd, RUNTIMES[1])
    box.detach("app", "sleep", 600)
    kept = Path(own_containerd.env["SHIMD_RUNTIME_DIR"]) / "native" / box.namespace
    assert [path.name for path in kept.iterdir()] == ["app"]
    pid = own_containerd.daemon_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not list(kept.iterdir()), "the launcher to clean up")
    until(lambda: box.status("app") != "RUNNING", "containerd to know")
    box.remove("app")
    assert box.run("app", "exit", 3).code == 3
