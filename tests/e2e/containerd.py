"""A private containerd: its own root, state, sockets and shimd directories below one short directory."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.e2e import audit, leftovers

REPOSITORY = Path(__file__).parents[2]
#: Where the launchers are: beside the interpreter that runs the tests.
LAUNCHERS = Path(sys.executable).parent
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"
#: Seconds until a command or a state that tests wait for counts as hanging.
PATIENCE = int(os.environ.get("SHIMD_TEST_PATIENCE", "180"))

#: A daemon that was killed may take the two seconds that containerd waits for a State, on a busy machine.
CONFIG = """\
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = [
    "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
    "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
    "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.erofs", "io.containerd.internal.v1.opt",
]
[grpc]
  address = "{directory}/containerd.sock"
[ttrpc]
  address = "{directory}/containerd.sock.ttrpc"
[timeouts]
  "io.containerd.timeout.task.state" = "{patience}s"
"""


@dataclass(frozen=True)
class Version:
    """One containerd with its own ctr and runc shim."""

    name: str
    programs: str
    """Directories with its programs, as in PATH."""
    import_flags: Sequence[str]

    def program(self, name: str) -> str:
        for directory in self.programs.split(":"):
            if (path := Path(directory) / name).exists():
                return str(path)
        raise FileNotFoundError(f"{name} is not in {self.programs}: run tools/setup")


#: Debian's own (1.6 in bookworm, 1.7 in trixie), and 2.x as tools/setup builds it.
VERSIONS = [
    Version("debian", SYSTEM, ["--all-platforms"]),
    Version("v2", str(REPOSITORY / ".cache/containerd"), ["--local", "--all-platforms"]),
]


def shimd_environment(directory: Path) -> dict[str, str]:
    """What keeps a shimd to a directory of its own."""
    return {
        "SHIMD_RUNTIME_DIR": str(directory / "shimd"),
        "SHIMD_STATE_DIR": str(directory / "shimd-state"),
        "SHIMD_CACHE_DIR": str(directory / "shimd-cache"),
        "SHIMD_LINGER": "0.2",  # each test waits for all processes to be gone
        "SHIMD_LAUNCH_TIMEOUT": str(PATIENCE),
    }


@dataclass(frozen=True)
class Result:
    """What a finished command said."""

    command: Sequence[str]
    code: int
    out: str
    err: str


class Containerd:
    """Started and stopped at will; what it keeps on disk stays until the directory goes."""

    def __init__(self, version: Version, directory: Path) -> None:
        self.version, self.directory = version, directory
        self.address = directory / "containerd.sock"
        self.log = directory / "containerd.log"
        self.events_log = directory / "events"
        self.audit = directory / "audit"
        audit.prepare(self.audit)
        self.env = {
            **shimd_environment(directory),
            audit.NAME: str(self.audit),
            "PATH": f"{LAUNCHERS}:{version.programs}:{SYSTEM}",
            "CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS": "1",
            "CONTAINERD_SNAPSHOTTER": snapshotter(directory),
        }
        self._config = directory / "config.toml"
        self._asked: int | None = -1
        """The daemon that was asked to end last."""
        self._config.write_text(self._configuration())
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: subprocess.Popen[bytes] | None = None

    def _configuration(self) -> str:
        return CONFIG.format(directory=self.directory, patience=PATIENCE)

    def close(self) -> None:
        """After the last stop."""

    def _enter(self) -> list[str]:
        """The words before every command line: how to come where this containerd runs."""
        return []

    def start(self) -> None:
        command = [*self._enter(), self.version.program("containerd"), "--config", str(self._config)]
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + PATIENCE
        while self.ctr("version", check=False).code != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"containerd did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)
        with open(self.events_log, "ab") as log:
            self._listener = subprocess.Popen([*self._ctr(), "events"], env=self.env, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it and wait until it has ended. Apps go on."""
        for process in (self._process, self._listener):
            if process is not None:
                process.send_signal(number)
                process.wait(PATIENCE)
        self._process = self._listener = None

    def restart(self, number: int = signal.SIGTERM) -> None:
        self.stop(number)
        self.start()

    def _ctr(self) -> list[str]:
        return [self.version.program("ctr"), "--address", str(self.address)]

    def command(self, *arguments: object, namespace: str = "default") -> list[str]:
        return [*self._ctr(), "--namespace", namespace, *map(str, arguments)]

    def ctr(
        self, *arguments: object, namespace: str = "default", check: bool = True, stdin: str | None = None
    ) -> Result:
        """Run ``ctr`` to its end; with ``check``, a failure is an error of the test."""
        command = self.command(*arguments, namespace=namespace)
        pipe = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        done = subprocess.run(
            command,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            **pipe,
        )
        result = Result(command, done.returncode, done.stdout, done.stderr)
        if check and result.code != 0:
            raise AssertionError(f"{' '.join(command[1:])}: exit code {result.code}\n{result.out}{result.err}")
        return result

    def import_image(self, path: Path, namespace: str) -> None:
        self.ctr("images", "import", *self.version.import_flags, path, namespace=namespace)

    def bundle(self, namespace: str, container: str) -> Path:
        return self.directory / "state/io.containerd.runtime.v2.task" / namespace / container

    def bundles(self, namespace: str) -> list[Path]:
        return list(self.bundle(namespace, "x").parent.glob("*"))

    def daemon_pid(self) -> int | None:
        """The pid of the shimd that this containerd's launchers started, if one runs."""
        try:
            return int((self.directory / "shimd/shimd.pid").read_text())
        except FileNotFoundError:
            return None

    def stop_daemon(self) -> None:
        if pid := self.daemon_pid():
            with suppress(ProcessLookupError):  # it is about to end
                os.kill(pid, signal.SIGTERM)

    def ends(self) -> dict[int, str]:
        """What is left of shimd, whose daemon is asked to end. One that comes back has events for a containerd that has
        gone, say, and is ended as an operator would do that."""
        if (pid := self.daemon_pid()) != self._asked:
            if self._asked in (-1, None) or pid is None:
                self.stop_daemon()
            else:
                command = [str(LAUNCHERS / "shimd"), "stop", "--force"]
                subprocess.run(command, env=self.env, capture_output=True, timeout=PATIENCE, check=False)
            self._asked = pid
        return leftovers.processes_of(self.directory)

    def kill_daemon(self) -> None:
        """And its keeper, so that there is none until a launcher starts one."""
        processes = leftovers.processes_of(self.directory).items()
        parts = [pid for pid, line in processes if line.endswith(("shimd serve", "shimd-keeper"))]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in parts:
                os.kill(pid, number)

    def daemon_log(self) -> str:
        path = self.directory / "shimd/shimd.log"
        return path.read_text(errors="replace") if path.exists() else ""


Kind = TypeVar("Kind", bound=Containerd)


def configured(kind: Callable[[Version, Path], Kind], settings: Mapping[str, str]) -> Callable[[Version, Path], Kind]:
    """Returns what makes one with these variables, which its daemon has, too."""

    def made(version: Version, directory: Path) -> Kind:
        containerd = kind(version, directory)
        containerd.env |= settings
        return containerd

    return made


@contextmanager
def running(version: Version, kind: Callable[[Version, Path], Kind]) -> Iterator[Kind]:
    """A containerd, whose end leaves nothing."""
    directory = Path(tempfile.mkdtemp(prefix="shimd-e2e-"))
    containerd = kind(version, directory)
    try:
        containerd.start()
        yield containerd
        containerd.stop()
        assert not (left := leftovers.settled(containerd.ends)), left
        assert not leftovers.mounts(str(directory))
        assert not leftovers.settled(lambda: leftovers.compile_cgroups(directory / "shimd"))
        audit.check(containerd.audit)
    finally:
        containerd.close()
        leftovers.end(list(leftovers.processes_of(directory)))
        for point in reversed(leftovers.mounts(str(directory))):
            os.system(f"umount -l {point}")
        for cgroup in leftovers.compile_cgroups(directory / "shimd"):
            cgroup.rmdir()
        shutil.rmtree(directory)


def snapshotter(directory: Path) -> str:
    """overlayfs, unless the file system of the directory cannot be its upper one."""
    names = [directory / name for name in ("upper", "lower", "work", "merged")]
    for name in names:
        name.mkdir(exist_ok=True)
    upper, lower, work, merged = names
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    tried = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], capture_output=True)
    if tried.returncode != 0:
        return "native"
    subprocess.run(["umount", merged], check=True)
    return "overlayfs"


def version_of(containerd: Containerd) -> tuple[int, int]:
    found = re.search(r"Server:\s+Version:\s+v?(\d+)\.(\d+)", containerd.ctr("version").out)
    assert found is not None
    return int(found[1]), int(found[2])
