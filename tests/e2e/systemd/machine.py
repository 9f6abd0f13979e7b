"""A machine with systemd as its process 1: this machine's own files, in namespaces and cgroups of their own.

Its root is an overlay whose upper part is in memory, so whatever happens in there is gone afterwards.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.e2e.containerd import PATIENCE

INSIDE = Path(__file__).with_name("inside.sh")
CGROUPS = Path("/sys/fs/cgroup")
NAMESPACES = ("--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup")


class Machine:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.root = Path(f"/proc/{pid}/root")

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in there; its stdout and stderr."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-C", "--", "env", "-i"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        done = subprocess.run([*enter, path, *command], capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def show(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", "-p", name, unit).strip()

    def main_pid(self, unit: str) -> int:
        """Its pid in there; 0 if it does not run."""
        return int(self.show(unit, "MainPID") or 0)

    def wait_for(self, what: str, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}\n{self.run('journalctl', '-n50')}"
            time.sleep(0.05)


def hierarchies() -> list[Path]:
    """The roots where a cgroup can be made."""
    candidates = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir())]
    return [path for path in candidates if path.is_mount() and (path / "cgroup.procs").exists()]


def possible(mode: str) -> bool:
    """Whether the kernel's controllers are where ``mode`` looks for them."""
    return mode == "unified" or len(hierarchies()) > 1


@contextmanager
def booted(mode: str) -> Iterator[Machine]:
    """A machine that has booted; it and all that it was are gone at the end."""
    directory = Path(tempfile.mkdtemp(prefix="shimd-machine-"))
    cgroups = [root / f"shimd-machine-{os.getpid()}" for root in hierarchies()]
    for cgroup in cgroups:
        make_cgroup(cgroup)
    join = "for procs; do echo $$ >$procs; done"
    unshare = ["unshare", *NAMESPACES, "--fork", "--kill-child", "--propagation", "private"]
    inside = ["sh", str(INSIDE), str(directory), mode, *other_file_systems()]
    script = f"set -e; {join}; exec {' '.join([*unshare, *inside])}"
    log = directory.with_suffix(".log")
    with open(log, "wb") as output:
        procs = [str(cgroup / "cgroup.procs") for cgroup in cgroups]
        process = subprocess.Popen(
            ["sh", "-c", script, "sh", *procs], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        machine = Machine(first_process(process, log))
        machine.wait_for("systemd", lambda: is_up(machine))
        yield machine
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory)
        log.unlink()
        for cgroup in cgroups:
            remove_cgroup(cgroup)


def other_file_systems() -> list[str]:
    """Where the project and its Python are, if that is not on the root file system."""
    wanted = [Path(__file__).parents[3], Path(sys.prefix), Path(sys.base_prefix)]
    return [str(path) for path in wanted if path.stat().st_dev != Path("/").stat().st_dev]


def first_process(unshare: "subprocess.Popen[bytes]", log: Path) -> int:
    """The child of unshare, once it is systemd."""
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
    deadline = time.monotonic() + PATIENCE
    while unshare.poll() is None and time.monotonic() < deadline:
        for pid in children.read_text().split():
            with suppress(FileNotFoundError):
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return int(pid)
        time.sleep(0.02)
    raise AssertionError(f"systemd did not start:\n{log.read_text()}")


def is_up(machine: Machine) -> bool:
    return machine.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")


def make_cgroup(directory: Path) -> None:
    directory.mkdir()
    for name in ("cpuset.cpus", "cpuset.mems"):  # version 1: empty, and nobody may join
        if (directory / name).exists():
            (directory / name).write_text((directory.parent / name).read_text())


def remove_cgroup(directory: Path) -> None:
    """With all that systemd has made in it; its processes are dying."""
    deadline = time.monotonic() + PATIENCE
    while directory.exists():
        for path, _, _ in os.walk(directory, topdown=False):
            with suppress(OSError):
                os.rmdir(path)
        assert time.monotonic() < deadline, f"{directory} cannot be removed"
        time.sleep(0.02)
