"""An installed launcher, called as containerd calls it, beside a stand-in for the daemon."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

#: As every containerd passes them.
FLAGS = (
    "-namespace",
    "k8s.io",
    "-address",
    "/run/containerd/containerd.sock",
    "-publish-binary",
    "/usr/bin/containerd",
)
STANDIN = Path(__file__).with_name("standin.py")


def install_standin(directory: Path) -> None:
    program = directory / "shimd"
    program.write_text(f"#!{sys.executable} -IS\n{STANDIN.read_text()}")
    program.chmod(0o755)


@dataclass
class Launcher:
    """One installed launcher, its runtime directory and a bundle, called as containerd does."""

    program: Path
    runtime: Path
    bundle: Path
    env: dict[str, str] = field(default_factory=dict)

    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "NOTIFY_SOCKET": "/run/systemd/notify",
            "TTRPC_ADDRESS": "/run/containerd/containerd.sock.ttrpc",
            "GRPC_ADDRESS": "/run/containerd/containerd.sock",
            "SHIMD_RUNTIME_DIR": str(self.runtime),
            "SHIMD_LAUNCH_TIMEOUT": "5",
            **self.env,
        }

    def popen(self, *arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [self.program, *arguments],
            cwd=self.bundle if self.bundle.exists() else "/",
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def call(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        """Run to the end of the process *and* of its output, as containerd waits."""
        process = self.popen(*arguments)
        stdout, stderr = process.communicate(timeout=30)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def start(self, id: str = "web") -> "subprocess.CompletedProcess[bytes]":
        return self.call(*FLAGS, "-id", id, "start")

    def delete(self, id: str = "web") -> "subprocess.CompletedProcess[bytes]":
        return self.call(*FLAGS, "-id", id, "-bundle", str(self.bundle), "delete")

    def daemons(self) -> list[int]:
        """The pids of all daemons ever started."""
        starts = self.runtime / "starts"
        return [int(line) for line in starts.read_text().split()] if starts.exists() else []

    def kill_daemons(self) -> None:
        for pid in self.daemons():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


FLAGS = (
    "-namespace",
    "k8s.io",
    "-address",
    "/run/containerd/containerd.sock",
    "-publish-binary",
    "/usr/bin/containerd",
)


def wait_dead(pid: int) -> None:
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} lives")
