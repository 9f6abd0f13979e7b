"""HTTP apps beside a native server: requests a second, latency and memory, in one run, as ratios.

``python -m benchmarks.http`` needs Debian's ``wrk``. The peer is a hello of uvicorn, in the same interpreter; the apps
are hellos made from Python by componentize-py, which is the slowest guest there is, an interpreter, fresh for each
request; from JavaScript by componentize-js; from Rust; and with spin-sdk from Python and Rust.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.shims import SPIN_TOML
from benchmarks.tasks import pss
from tests.components import javascript, rust
from tests.components.build import component
from tests.e2e import http_app, leftovers, spin_app
from tests.e2e.box import Box, until
from tests.e2e.containerd import LAUNCHERS, VERSIONS, Containerd, running

#: A socket for each process, as shimd has; asyncio sets TCP_NODELAY only on one that says that it is TCP, which that of
#: ``uvicorn --workers`` does not: each answer waits 40 ms for an acknowledgement then.
_NATIVE = """
import os, socket, sys, uvicorn

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello from a component\\n"})

port, processes = map(int, sys.argv[1:])
if processes > 1:
    os.fork()
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(("127.0.0.1", port))
config = uvicorn.Config(app, http="h11", loop="asyncio", lifespan="off", log_level="critical", access_log=False)
uvicorn.Server(config).run(sockets=[listener])
"""
CONNECTIONS = (1, 8)
SECONDS = 5


def load(address: str, connections: int) -> tuple[float, float]:
    """Requests a second, and the median latency in ms."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}", "--latency", f"http://{address}/"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in said, said
    rate, latency = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"50%\s+([\d.]+)(us|ms|s)", said)
    assert rate and latency, said
    return float(rate[1]), float(latency[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[latency[2]]


def pss_of_all(pid: int) -> float:
    """MiB of proportional set size of a process and all below it."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return pss(pid) + sum(pss_of_all(int(child)) for child in below)


@contextmanager
def native(processes: int) -> Iterator[tuple[str, int]]:
    """:param processes: 1 or 2"""
    port = http_app.free_port()
    command = [sys.executable, "-c", _NATIVE, str(port), str(processes)]
    with subprocess.Popen(command, process_group=0) as process:
        try:
            until(lambda: http_app.answers(f"127.0.0.1:{port}"), "uvicorn to listen")
            yield f"127.0.0.1:{port}", process.pid
        finally:
            os.killpg(process.pid, signal.SIGTERM)


@contextmanager
def served(program: Path, processes: int, launchers: Path = LAUNCHERS) -> Iterator[tuple[str, int]]:
    with (
        tempfile.TemporaryDirectory() as directory,
        http_app.running(
            program, Path(directory, "log"), launchers=launchers, patience=120, SHIMD_HTTP_PROCESSES=str(processes)
        ) as app,
    ):
        yield app.address, app.process.pid


@contextmanager
def spin(program: Path, processes: int) -> Iterator[tuple[str, int]]:
    """An application of spin-sdk, in a container."""
    with running(VERSIONS[0], Containerd) as containerd:
        box = Box(containerd, "bench-http", spin_app.SPIN)
        files = {"/app.wasm": program.read_bytes()}
        archive = spin_app.image(containerd.directory / "spin.tar", spin_app.SPIN.image, SPIN_TOML, files)
        containerd.import_image(archive, box.namespace)
        with spin_app.running(box, SHIMD_HTTP_PROCESSES=str(processes)) as app:
            yield app.address, int(box.ctr("tasks", "ls").out.splitlines()[1].split()[1])
        box.close()
        leftovers.remove_parents(box.namespace)


Server = Callable[[int], AbstractContextManager[tuple[str, int]]]
PEER = "uvicorn, native"


def servers(before: Path | None) -> dict[str, Server]:
    """:param before: the programs of another installation, which serve the components for wasi-http, too"""
    apps = {
        "Python": component("proxy", "proxy"),
        "JavaScript": javascript.component("fetch"),
        "Rust": rust.component("server"),
    }
    found: dict[str, Server] = {PEER: native}
    for language, program in apps.items():
        found[f"wasi-http, {language}"] = partial(served, program)
        if before is not None:
            found[f"wasi-http, {language}, before"] = partial(served, program, launchers=before)
    found["Spin, Python"] = partial(spin, component("spin", "spin-all"))
    found["Spin, Rust"] = partial(spin, rust.component("spin"))
    return found


@dataclass(frozen=True)
class Row:
    app: str
    processes: int
    pss: float
    """MiB."""
    loads: list[tuple[float, float]]
    """Requests a second and median ms, by :data:`CONNECTIONS`."""


def measure(before: Path | None) -> list[Row]:
    rows = []
    for processes in (1, 2):
        for name, server in servers(before).items():
            with server(processes) as (address, pid):
                load(address, 1)
                time.sleep(0.5)
                memory = pss_of_all(pid)
                rows.append(Row(name, processes, memory, [load(address, number) for number in CONNECTIONS]))
    return rows


def table(rows: list[Row]) -> str:
    """Each beside the peer with as many processes."""
    columns = ["", "processes"]
    for number in CONNECTIONS:
        columns += [f"requests/s, {number} connection{'s' if number > 1 else ''}", "to uvicorn's", "median ms"]
    lines = [columns, ["---"] * (len(columns) + 1)]
    columns.append("PSS, MiB")
    for row in rows:
        peer = next(it for it in rows if it.app == PEER and it.processes == row.processes)
        cells = [row.app, str(row.processes)]
        for (rate, latency), (best, _latency) in zip(row.loads, peer.loads, strict=True):
            cells += [f"{rate:,.0f}", f"{rate / best:.3f}", f"{latency:.2f}"]
        lines.append([*cells, f"{row.pss:.0f}"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    parser.add_argument(
        "--before", type=Path, metavar="BIN", help="the .venv/bin of a checkout of the commit before, to compare with"
    )
    print(table(measure(parser.parse_args().before)))


if __name__ == "__main__":
    main()
