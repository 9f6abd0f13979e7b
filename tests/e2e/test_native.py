"""Native containers under a Wasm runtime's name: what is not said by the whole suite being run on them, too."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shimd.linux.pidfd import is_zombie
from tests.e2e import guests, images, leftovers
from tests.e2e.box import RUNTIMES, Box, content, until
from tests.e2e.conftest import BoxMaker
from tests.e2e.containerd import VERSIONS, Containerd, Version, running

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


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_fork_server_that_dies(own_containerd: Containerd, new_box: BoxMaker) -> None:
    """Its native containers go on, and their end is still told."""
    box = new_box(own_containerd, RUNTIMES[1])
    output = box.detach("app", "tick")
    processes = leftovers.processes_of(own_containerd.directory)
    servers = [pid for pid, line in processes.items() if "shimd.forkserver.main" in line]
    (server,) = [pid for pid in servers if parent(pid) not in servers]  # and not its zygote
    os.kill(server, signal.SIGKILL)
    seen = len(content(output))
    until(lambda: len(content(output)) > seen, "more ticks")
    box.kill("app")
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 137
    assert box.run("next").code == 0
    daemon = own_containerd.daemon_pid()
    until(lambda: not [pid for pid in leftovers.children_of(daemon) if is_zombie(pid)], "its zygote to be waited for")


def test_a_daemon_that_dies(own_containerd: Containerd, new_box: BoxMaker) -> None:
    """For good: the launcher cleans up for it. What runc keeps is gone, too, and the name is free again."""
    box = new_box(own_containerd, RUNTIMES[1])
    box.detach("app", "sleep", 600)
    kept = Path(own_containerd.env["SHIMD_RUNTIME_DIR"]) / "native" / box.namespace
    assert [path.name for path in kept.iterdir()] == ["app"]
    own_containerd.kill_daemon()
    until(lambda: not list(kept.iterdir()), "the launcher to clean up")
    until(lambda: box.status("app") != "RUNNING", "containerd to know")
    box.remove("app")
    assert box.run("app", "exit", 3).code == 3


class OldCgroups(Containerd):
    """On a node with version 1 of cgroups alone: crun 1.8 takes no hybrid ones."""

    def __init__(self, version: Version, directory: Path) -> None:
        hidden = "umount /sys/fs/cgroup/unified 2>/dev/null; exec sleep infinity"
        self._holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", hidden])
        until(lambda: Path(f"/proc/{self._holder.pid}/comm").read_text() == "sleep\n", "the mount namespace")
        super().__init__(version, directory)
        self.env["SHIMD_RUNC"] = "crun"

    def _enter(self) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", f"--wd={self.directory}", "--"]

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


@pytest.fixture(scope="module")
def crun() -> Iterator[Containerd]:
    """With Debian's containerd: its crun, 1.8, refuses the newer version that containerd 2.x writes into its specs."""
    if not shutil.which("crun"):
        pytest.skip("no crun here")
    with running(VERSIONS[0], OldCgroups) as containerd:
        yield containerd


@pytest.fixture
def by_crun(crun: Containerd, new_box: BoxMaker) -> Box:
    return new_box(crun, RUNTIMES[1])


def test_crun_to_the_end(by_crun: Box) -> None:
    assert by_crun.run("hello").out == "hello from app\n"
    assert by_crun.run("code", "exit", 7).code == 7


def test_crun_while_it_runs(by_crun: Box) -> None:
    output = by_crun.detach("app", "tick", flags=("--memory-limit", 1 << 26))
    until(lambda: "tick 1" in content(output), "ticks")
    known = Path(by_crun.containerd.env["SHIMD_RUNTIME_DIR"]) / "native" / by_crun.namespace
    assert [path.name for path in known.iterdir()] == ["app"], "crun's state, not runc's"
    assert not (known / "app/state.json").exists()
    assert by_crun.exec("app", "more", "echo", "inside").out == "inside\n"
    assert by_crun.exec("app", "other", "exit", 3).code == 3
    (limit,) = Path("/sys/fs/cgroup/memory").glob(f"{by_crun.namespace}/app/memory.limit_in_bytes")
    assert int(limit.read_text()) == 1 << 26
    assert str(1 << 26) in by_crun.ctr("tasks", "metrics", "app").out
    by_crun.ctr("tasks", "pause", "app")
    by_crun.wait_status("app", "PAUSED")
    by_crun.ctr("tasks", "resume", "app")
    by_crun.kill("app")
    by_crun.wait_status("app", "STOPPED")
    assert by_crun.delete("app") == 137
    assert not list(known.iterdir())


def test_crun_beside_wasm(crun: Containerd, new_box: BoxMaker) -> None:
    """The same supervisor runs both, on version 1 alone."""
    assert new_box(crun, RUNTIMES[2]).run("app", "exit", 5).code == 5


@pytest.mark.parametrize("program", ["/orphan", "/garbage"])
def test_crun_says_why_not(by_crun: Box, tmp_path: Path, program: str) -> None:
    contents = images.layer(
        {"/garbage": b"\x7fELF" + b"garbage " * 100, "/orphan": b"#!/nowhere\n"}, guests.DIRECTORIES
    )
    images.save(tmp_path / "odd.tar", [images.image(IMAGE, [contents], {"Entrypoint": [program], "Env": ["PATH=/"]})])
    by_crun.containerd.import_image(tmp_path / "odd.tar", by_crun.namespace)
    done = by_crun.run("odd", image=IMAGE)
    assert done.code != 0
    assert re.search(r"exec|No such file", done.err)
    by_crun.remove("odd")
