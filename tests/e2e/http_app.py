"""An HTTP app run by ``shimd run``, for as long as a test wants it."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.components.build import component, newer
from tests.e2e import images
from tests.e2e.box import RUNTIMES, happens
from tests.e2e.containerd import LAUNCHERS, PATIENCE

IMAGE = "test.invalid/http:1"
#: The engine that apps are run by; tests of both of wasmtime's hosts set it.
host = ["wasmtime"]

on_wasmtime = pytest.mark.parametrize(
    "runtime", [runtime for runtime in RUNTIMES if runtime.name == "wasmtime"], ids=lambda it: it.name, indirect=True
)


def archive(path: Path, program: Path | None = None) -> Path:
    """An image of ``program``, or of the component of ``tests/components/proxy``."""
    program = program or component("proxy", "proxy")
    files = {"/app.wasm": program.read_bytes(), "/busybox": Path("/bin/busybox").read_bytes()}
    contents = images.layer({**files, "/data/note": b"a note\n"}, ["tmp", "var"], {"/var/data": "/data"})
    process = {"Entrypoint": ["/app.wasm"], "Env": ["PATH=/", "FROM_IMAGE=yes"]}
    images.save(path, [images.image(IMAGE, [contents], process)])
    return path


@dataclass
class App:
    """A running server."""

    process: "subprocess.Popen[str]"
    address: str
    output: Path
    """What it writes to stdout and stderr."""

    def get(self, path: str, **more: object) -> httpx.Response:
        return httpx.get(f"http://{self.address}{path}", timeout=30, trust_env=False, **more)  # type: ignore[arg-type]

    def lines(self, path: str) -> list[tuple[str, float]]:
        """Of an answer, and when each came (monotonic)."""
        with httpx.stream("GET", f"http://{self.address}{path}", trust_env=False) as answer:
            return [(line, time.monotonic()) for line in answer.iter_lines()]

    def said(self) -> str:
        return self.output.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def end_with_one_under_way(self, path: str, number: int = signal.SIGTERM) -> tuple[list[str], int]:
        """Tell it to end in the middle of an answer: that answer's lines, and the exit code."""
        lines = with_one_under_way(self.address, path, lambda: self.process.send_signal(number))
        return lines, self.process.wait(60)


def with_one_under_way(address: str, path: str, end: Callable[[], object]) -> list[str]:
    """Returns an answer's lines, in the middle of which the app is told to end."""
    with httpx.stream("GET", f"http://{address}{path}", timeout=30, trust_env=False) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        end()
        return [first, *lines]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as sock:
        return sock.connect_ex((host, int(port))) == 0


def serving(app: App) -> int:
    """The process that listens."""
    port = f":{int(app.address.rpartition(':')[2]):04X}"
    sockets = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
    listening = next(f"socket:[{it[9]}]" for it in sockets if it[1].endswith(port) and it[3] == "0A")
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(link) == listening:
                return int(link.parts[2])
    raise AssertionError("nobody listens")


def memory(app: App, kind: str = "Pss") -> int:
    """Of the app's processes, in bytes.

    :param kind: as proc_pid_smaps(5) has it; of ``Pss_Anon`` nobody else has a share, who would come and go
    """
    pids, size = [app.process.pid], 0
    while pids:
        pid = pids.pop()
        with suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            size += next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith(f"{kind}:"))
            for task in Path(f"/proc/{pid}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
    return size


def settles(look: Callable[[], int]) -> None:
    """Wait until it does not change any more."""
    before = -1
    while (now := look()) != before:
        before = now
        time.sleep(0.2)


def guest(version: str) -> Path:
    """The same server in Python, of a version of WASI."""
    return newer() if version == "0.3" else component("proxy", "proxy")


@contextmanager
def running(
    program: Path,
    output: Path,
    *flags: str,
    engine: str = "",
    network: bool = True,
    launchers: Path = LAUNCHERS,
    patience: float = PATIENCE,
    by: Sequence[str] = (),
    **environment: str,
) -> Iterator[App]:
    """
    :param engine: :data:`host`, if none is named
    :param launchers: where ``shimd`` is
    :param patience: seconds until it listens
    :param by: a command that starts it
    :param environment: the app's
    """
    address = f"127.0.0.1:{free_port()}"
    variables = {"WASMTIME_HTTP_PROXY_SOCKET_ADDR": address, "SPIN_HTTP_LISTEN_ADDR": address, **environment}
    env = [f"--env={name}={value}" for name, value in variables.items()]
    command = [str(launchers / "shimd"), "run", "--engine", engine or host[0], *env, *flags, str(program)]
    if network:
        command.insert(2, "--network")
    with output.open("w") as log, subprocess.Popen([*by, *command], stdout=log, stderr=log, text=True) as process:
        try:
            assert happens(lambda: answers(address) or process.poll() is not None, patience), "it does not listen"
            assert process.poll() is None, output.read_text()
            yield App(process, address, output)
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)  # and the app with it: its fork server is private
                process.wait()
