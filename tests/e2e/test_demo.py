"""``make demo`` where something goes wrong: an end within seconds, with the reason, and nothing left."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shimd.cgroup import layout
from shimd.supervisor.modules.compile_cgroups import _memory_only
from tests.e2e import leftovers
from tests.e2e.box import until
from tests.e2e.containerd import REPOSITORY, SYSTEM

#: Signals every process of a name in the demo's pid namespace, whose ``/proc`` this is.
_SIGNAL = 'for each in /proc/[0-9]*; do [ "$(cat $each/comm)" != {0} ] || kill -{1} "${{each#/proc/}}"; done'


@dataclass
class Rig:
    """The demo, with programs of a test's own before all others."""

    directory: Path

    def __post_init__(self) -> None:
        self.env = {**os.environ, "PATH": f"{self.directory}:{SYSTEM}"}

    def program(self, name: str, script: str) -> None:
        """A shell script of that name. It may go on with ``real`` and arguments: the program that is in its place."""
        path = self.directory / name
        real = f'real() {{ exec "$(PATH=${{PATH#*:*:}} command -v {name})" "$@"; }}'
        path.write_text(f"#!/bin/sh\n{real}\n{script}\n")
        path.chmod(0o755)

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "tools/demo.py"], cwd=REPOSITORY, env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0,
        )  # fmt: skip

    def run(self) -> tuple[int, str]:
        process = self.start()
        printed, _ = process.communicate()
        return process.returncode, printed


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """At its end, nothing is left of the demo that the machine did not have before."""
    before = traces()
    rig = Rig(tmp_path)
    yield rig
    assert not leftovers.settled(lambda: leftovers.processes_of(tmp_path))
    assert not traces() - before


def traces() -> set[str]:
    places = ("/tmp", "/run", "/run/containerd", "/run/containerd/*", "/sys/fs/cgroup", "/sys/fs/cgroup/*")
    found = {str(path) for place in places for path in Path("/").glob(f"{place[1:]}/*") if "demo" in path.name}
    return found | set(leftovers.mounts("demo"))


def test_without_overlayfs(rig: Rig) -> None:
    without = r's/^disabled_plugins = \[/&"io.containerd.snapshotter.v1.overlayfs", /'
    rig.program("containerd", f"""sed -i '{without}' "$2" && grep -q overlayfs "$2" && real "$@" """)
    code, printed = rig.run()
    assert code == 0, printed


def test_what_a_compilation_leaves(rig: Rig) -> None:
    """Its cgroup, if the end of all comes in between: made here once the daemon has looked for such ones."""
    root = Path(_memory_only(layout.current()).roots[0])
    left = f"left{os.getpid()}"
    name = f'shimd-compile-$(printf %s "$SHIMD_RUNTIME_DIR" | sha256sum | cut -c 1-8)-{left}'
    rig.program("ctr", f'case "$*" in *io.containerd.runc*) mkdir "{root}/{name}" && echo made;; esac; real "$@"')
    code, printed = rig.run()
    try:
        assert code == 0, printed
        assert "\nmade\n" in printed
        assert not list(root.glob(f"shimd-compile-*-{left}"))
    finally:
        for directory in root.glob(f"shimd-compile-*-{left}"):
            directory.rmdir()


def test_containerd_that_dies_at_once(rig: Rig) -> None:
    rig.program("containerd", "seq 100; echo the reason >&2; exit 1")
    code, printed = rig.run()
    assert code == 1
    assert printed.startswith("demo: containerd ended while starting; the last of its log:\n82\n")
    assert printed.endswith("\nthe reason\n")


def test_containerd_that_never_answers(rig: Rig) -> None:
    rig.program("containerd", "echo up and about; sleep infinity")
    code, printed = rig.run()
    assert code == 1
    assert printed.startswith("demo: containerd did not answer within ")
    assert printed.endswith("\nup and about\n")


@pytest.mark.parametrize(("number", "sentence"), [("KILL", "has ended"), ("STOP", "does not answer any more")])
def test_containerd_that_fails_under_an_app(rig: Rig, number: str, sentence: str) -> None:
    rig.program("ctr", f'[ "$1" != run ] || {{ {_SIGNAL.format("containerd", number)}; }}; real "$@"')
    code, printed = rig.run()
    assert code == 1
    assert f"\ndemo: containerd {sentence}; the last of its log:\n" in printed
    assert "level=info" in printed.partition("of its log:")[2]


def test_containerd_that_is_not_there(rig: Rig, tmp_path: Path) -> None:
    rig.env["PATH"] = str(tmp_path)
    rig.program("containerd", "")
    (tmp_path / "containerd").chmod(0o644)
    code, printed = rig.run()
    assert (code, printed) == (1, "demo: [Errno 13] Permission denied: 'containerd'\n")


@pytest.mark.parametrize(
    ("send", "number"),
    [
        pytest.param(os.killpg, signal.SIGINT, id="key"),
        pytest.param(os.killpg, signal.SIGHUP, id="terminal closed"),
        pytest.param(os.kill, signal.SIGTERM, id="ended"),
    ],
)
def test_interrupted_under_a_container(rig: Rig, send: Callable[[int, int], None], number: int, tmp_path: Path) -> None:
    rig.program("runc", f'case "$*" in *" start "*) touch {tmp_path}/created; sleep infinity;; esac; real "$@"')
    process = rig.start()
    until((tmp_path / "created").exists, "the container")
    send(process.pid, number)
    printed, _ = process.communicate()
    assert process.returncode == 128 + number
    assert "Traceback" not in printed and "demo: " not in printed


def test_killed(rig: Rig, tmp_path: Path) -> None:
    """Even so all ends; cgroups, had there been any, would stay, empty."""
    rig.program("ctr", f'[ "$1" = version ] || {{ touch {tmp_path}/asked; sleep infinity; }}; real "$@"')
    process = rig.start()
    until((tmp_path / "asked").exists, "the first command")
    process.kill()
    process.communicate()


def test_without_namespaces() -> None:
    command = ["setpriv", "--bounding-set=-sys_admin", sys.executable, "tools/demo.py"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "demo: no namespaces can be made here: Operation not permitted\n")
