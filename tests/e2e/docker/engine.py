"""A private Docker Engine with its own default settings: in mount and network namespaces of its own, all that it keeps
below one short directory, its containers below one cgroup.

It starts and manages the containerd of ``.cache/containerd`` itself, as it does on a machine that has none running.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.e2e import audit, leftovers
from tests.e2e.containerd import LAUNCHERS, REPOSITORY, SYSTEM, Result, shimd_environment

PROGRAMS = REPOSITORY / ".cache/moby"
CONTAINERD = REPOSITORY / ".cache/containerd"
CONFIGURATION: dict[str, Any] = {"runtimes": {"wasm": {"runtimeType": "io.containerd.wasmtime.v1"}}}
#: Seconds until a command counts as hanging: a first start includes a compilation.
PATIENCE = 300
_START = """\
ip link set lo up
exec "$@"
"""


#: A stand-in for docker-init, called as ``docker-init -- PROGRAM ARGUMENTS``: says that it is there.
_INIT = """\
#include <unistd.h>
int main(int count, char **words) {
    write(2, "init\\n", 5);
    return count > 2 ? execv(words[2], words + 2) : 64;
}
"""


def make_init(path: Path) -> None:
    path.parent.mkdir()
    source = path.with_suffix(".c")
    source.write_text(_INIT)
    subprocess.run(["gcc", "-static", "-w", "-o", path, source], check=True)


class Engine:
    """``dockerd``, and ``docker`` to drive it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "dockerd.log"
        self.audit = directory / "audit"
        #: Others may run these tests on this machine at the same time.
        self.cgroup = f"e2e-docker-{os.getpid()}"
        audit.prepare(self.audit)
        self.env = {
            **shimd_environment(directory),
            audit.NAME: str(self.audit),
            "PATH": f"{LAUNCHERS}:{PROGRAMS}:{CONTAINERD}:{directory}/bin:{SYSTEM}",
            "HOME": str(directory),
            "DOCKER_HOST": f"unix://{directory}/docker.sock",
            "DOCKER_CLI_HINTS": "false",
        }
        (directory / "daemon.json").write_text(json.dumps(CONFIGURATION))
        make_init(directory / "bin/docker-init")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        flags = {
            "data-root": "root", "exec-root": "exec", "pidfile": "pid", "config-file": "daemon.json",
        }  # fmt: skip
        own = [f"--{flag}={self.directory / name}" for flag, name in flags.items()]
        own += [f"--host={self.env['DOCKER_HOST']}", f"--cgroup-parent=/{self.cgroup}"]
        unshare = ["unshare", "--mount", "--net", "--propagation", "private", "--", "sh", "-ec", _START, "sh"]
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [*unshare, str(PROGRAMS / "dockerd"), *own],
                env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while self.docker("version", check=False).code != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it, and the containers that it still has."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(PATIENCE)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def inside(self, *command: object) -> list[str]:
        """A command line that runs in its network."""
        assert self._process is not None
        return ["nsenter", f"--net=/proc/{self._process.pid}/ns/net", "--", *map(str, command)]

    def command(self, *arguments: object) -> list[str]:
        return [str(PROGRAMS / "docker"), *map(str, arguments)]

    def docker(self, *arguments: object, check: bool = True, stdin: str | None = None) -> Result:
        """Run ``docker`` to its end; with ``check``, a failure is an error of the test."""
        command = self.command(*arguments)
        pipe: dict[str, Any] = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=PATIENCE, **pipe)
        result = Result(command, done.returncode, done.stdout, done.stderr)
        if check and result.code != 0:
            raise AssertionError(f"{' '.join(command[1:])}: exit code {result.code}\n{result.out}{result.err}")
        return result

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.docker("inspect", name).out)[0]
        return found

    def state(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.inspect(name)["State"]
        return found

    def leftovers(self) -> dict[str, object]:
        """What is on the machine of its containers; nothing once they are removed."""
        seen = {
            "cgroups": leftovers.cgroups(self.cgroup),
            "processes": leftovers.processes_in(self.cgroup),
            "bundles": list(self.directory.glob("exec/containerd/daemon/io.containerd.runtime.v2.task/moby/*")),
        }
        return {kind: things for kind, things in seen.items() if things}

    def stop_daemon(self) -> None:
        """shimd, which outlives the engine for a moment."""
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self.directory / "shimd/shimd.pid").read_text()), signal.SIGTERM)


@contextmanager
def running() -> Iterator[Engine]:
    """An engine, whose end leaves nothing."""
    directory = Path(tempfile.mkdtemp(prefix="shimd-docker-"))
    engine = Engine(directory)
    try:
        engine.start()
        yield engine
        engine.stop()
        engine.stop_daemon()
        assert not leftovers.settled(lambda: leftovers.processes_of(directory))
        assert not leftovers.settled(engine.leftovers)
        assert not leftovers.mounts(str(directory))
        audit.check(engine.audit)
    finally:
        leftovers.end(list(leftovers.processes_of(directory)))
        for path in (*leftovers.CGROUP.glob(engine.cgroup), *leftovers.CGROUP.glob(f"*/{engine.cgroup}")):
            path.rmdir()
        shutil.rmtree(directory)
