"""crun as the runtime of native containers. It refuses hybrid cgroups, so what it runs in sees version 2 alone."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import leftovers
from tests.e2e.box import RUNTIMES, Box
from tests.e2e.conftest import BoxMaker
from tests.e2e.containerd import PATIENCE, Containerd, Result, Version, running

pytestmark = pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: run tools/setup")
UNIFIED = "umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec sleep infinity"
NATIVE = RUNTIMES[1]
#: Notes each of its calls.
WRAPPER = """#!/bin/sh
echo "$*" >>{log}
exec {crun} "$@"
"""


class Unified(Containerd):
    """In a mount namespace whose cgroups are of version 2."""

    def __init__(self, version: Version, directory: Path) -> None:
        unshare = ["unshare", "--mount", "--cgroup", "--propagation", "private", "sh", "-c", UNIFIED]
        self._holder = subprocess.Popen(unshare, stdin=subprocess.DEVNULL)
        super().__init__(version, directory)
        self.calls = directory / "calls"
        wrapper = directory / "crun"
        wrapper.write_text(WRAPPER.format(log=self.calls, crun=shutil.which("crun")))
        wrapper.chmod(0o755)
        self.env["SHIMD_RUNC"] = str(wrapper)

    def _enter(self) -> list[str]:
        namespaces = f"/proc/{self._holder.pid}/ns"
        return ["nsenter", f"--mount={namespaces}/mnt", f"--cgroup={namespaces}/cgroup", "--"]

    def start(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while Path(f"/proc/{self._holder.pid}/comm").read_text() != "sleep\n":
            assert self._holder.poll() is None and time.monotonic() < deadline, "cgroups of version 2 are not mounted"
            time.sleep(0.01)
        super().start()

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


@pytest.fixture
def containerd(version: Version) -> Iterator[Unified]:
    with running(version, Unified) as containerd:
        yield containerd


@dataclass
class App:
    """Native containers of plain directories: what ``ctr`` writes for an image asks for a share of the processors, and
    where version 1 has that controller, version 2 has none."""

    box: Box
    root: Path

    def run(self, id: str, *words: str, flags: tuple[str, ...] = ("--rm",)) -> Result:
        spec = {
            "ociVersion": "1.0.2",
            "root": {"path": str(self.root)},
            "process": {"args": ["/app", *words], "cwd": "/", "env": ["PATH=/"], "user": {"uid": 0, "gid": 0}},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
                "cgroupsPath": f"/{self.box.namespace}/{id}",
            },
        }
        file = self.root.with_name(f"{id}.json")
        file.write_text(json.dumps(spec))
        return self.box.ctr("run", *flags, "--runtime", NATIVE.type, "--config", file, id, check=False)


@pytest.fixture
def app(containerd: Unified, new_box: BoxMaker, programs: tuple[bytes, bytes], tmp_path: Path) -> App:
    root = tmp_path / "root"
    for name in ("proc", "dev", "sys"):
        (root / name).mkdir(parents=True)
    (root / "app").write_bytes(programs[0])
    (root / "app").chmod(0o755)
    return App(new_box(containerd, NATIVE), root)


def test_a_life_on_crun(containerd: Unified, app: App) -> None:
    """Output, exit codes, exec, a signal; and nothing is left."""
    done = app.run("one", "error", "oh")
    assert (done.code, done.out, done.err) == (0, "", "oh\n")
    assert app.run("two", "exit", "7").code == 7
    box = app.box
    assert app.run("three", "sleep", "600", flags=("-d", "--null-io")).code == 0
    assert box.exec("three", "first", "echo", "inside").out == "inside\n"
    assert box.exec("three", "second", "exit", 3).code == 3
    assert box.kill("three", "SIGKILL").code == 0
    box.wait_status("three", "STOPPED")
    assert box.delete("three") == 128 + signal.SIGKILL
    box.remove("three")
    assert not leftovers.settled(box.leftovers)
    assert {"create", "start", "exec", "delete"} <= set(containerd.calls.read_text().split())
