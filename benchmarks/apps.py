"""One app of each ecosystem, several times on one node: how soon it is there, and what each more of it takes.

``python -m benchmarks.apps``. Idle commands are there when containerd says that they run, servers when they answer.
Memory is the proportional set size of the apps' processes alone; what a node has once for all of them (the supervisor,
fork servers) is in the benchmark of tasks.
"""

import argparse
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.shims import IDLE_WAT, SPIN_TOML
from benchmarks.tasks import pss
from shimd.engines.registry import lacking
from tests.components import rust
from tests.e2e import images, leftovers, spin_app, test_slight
from tests.e2e.box import Box, Runtime
from tests.e2e.containerd import PATIENCE, VERSIONS, Containerd, running
from tests.e2e.http_app import free_port
from tests.slight.build import guest

IDLE = "test.invalid/idle:1"


@dataclass(frozen=True)
class Kind:
    name: str
    runtime: Runtime
    archive: Callable[[Path], Path]
    """Makes its image, in a directory."""
    address: str = ""
    """The variable that names the server's address; empty: it is a command that sleeps."""


def kinds() -> list[Kind]:
    commands = [name for name in ("wasmtime", "wasmer", "wasmedge") if lacking(name) is None]
    return [
        *(Kind(name, Runtime(name, IDLE, "/app.wasm", f"io.containerd.{name}.v1"), _idle) for name in commands),
        Kind("spin, Python", spin_app.SPIN, _spin_in_python, "SPIN_HTTP_LISTEN_ADDR"),
        Kind("spin, Rust", spin_app.SPIN, _spin_in_rust, "SPIN_HTTP_LISTEN_ADDR"),
        Kind("slight", test_slight.SLIGHT, _slight, "APP_ADDRESS"),
    ]


def _idle(directory: Path) -> Path:
    import wasmtime

    layer = images.layer({"/app.wasm": bytes(wasmtime.wat2wasm(IDLE_WAT))}, ("proc", "dev", "sys", "run"))
    images.save(directory / "idle.tar", [images.image(IDLE, [layer], {"Entrypoint": ["/app.wasm"]})])
    return directory / "idle.tar"


def _spin_in_python(directory: Path) -> Path:
    return spin_app.image(directory / "spin.tar", spin_app.SPIN.image, SPIN_TOML)


def _spin_in_rust(directory: Path) -> Path:
    files = {"/app.wasm": rust.component("spin").read_bytes()}
    return spin_app.image(directory / "spin.tar", spin_app.SPIN.image, SPIN_TOML, files)


def _slight(directory: Path) -> Path:
    slightfile = test_slight.SLIGHTFILE.replace("{secret}", test_slight.SECRET)
    return test_slight.image(directory / "slight.tar", slightfile, guest("app"))


def measure(number: int, only: set[str]) -> dict[str, dict[str, float]]:
    """Of each kind, so many of them: MiB per app, and milliseconds until it is there."""
    found = {}
    for kind in kinds():
        if only and kind.runtime.name not in only:
            continue
        with running(VERSIONS[0], Containerd) as containerd:
            box = Box(containerd, f"apps-{kind.runtime.name}", kind.runtime)
            containerd.import_image(kind.archive(containerd.directory), box.namespace)
            with _apps(box, kind, number) as (pids, times):
                memory = sum(map(pss, pids)) / len(pids)
            box.close()
            leftovers.remove_parents(box.namespace)
        found[kind.name] = {"pss_mib": round(memory, 1), "ms": round(statistics.median(times), 0)}
    return found


@contextmanager
def _apps(box: Box, kind: Kind, number: int) -> Iterator[tuple[list[int], list[float]]]:
    """Their pids, and how long each took but the first, for which the program is compiled."""
    ids = [f"app{serial}" for serial in range(number + 1)]
    times = [_start(box, kind, id) for id in ids][1:]
    time.sleep(1)
    lines = [line.split() for line in box.ctr("tasks", "ls").out.splitlines()[1:]]
    yield [int(pid) for _name, pid, _status in lines], times
    for id in ids:
        box.kill(id, "SIGKILL")
        box.wait_status(id, "STOPPED")
        box.delete(id)


def _start(box: Box, kind: Kind, id: str) -> float:
    address = f"127.0.0.1:{free_port()}"
    flags = ("--net-host", "--env", f"{kind.address}={address}") if kind.address else ()
    began = time.perf_counter()
    box.detach(id, flags=flags)
    if kind.address:
        host, _, port = address.rpartition(":")
        while not _answers(host, int(port)):
            assert time.perf_counter() < began + PATIENCE, f"{id} does not answer"
            time.sleep(0.001)
    return (time.perf_counter() - began) * 1000


def _answers(host: str, port: int) -> bool:
    """Asked by hand: an HTTP client takes as long to be made as such an app to start."""
    with socket.socket() as sock:
        if sock.connect_ex((host, port)):
            return False
        sock.sendall(b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
        return bool(sock.recv(1))


def table(found: dict[str, dict[str, float]]) -> str:
    lines = ["| | memory of each app, PSS MiB | until it is there, ms |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {row['pss_mib']} | {row['ms']:.0f} |" for name, row in found.items())])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.apps", description=__doc__)
    parser.add_argument("--apps", type=int, default=5, help="how many of each")
    parser.add_argument("--only", default="", help="these engines only, separated by commas")
    options = parser.parse_args()
    print(table(measure(options.apps, {name for name in options.only.split(",") if name})))


if __name__ == "__main__":
    main()
