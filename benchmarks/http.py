"""HTTP apps beside a native server: requests a second, latency and memory, in one run, as ratios.

``python -m benchmarks.http`` needs Debian's ``wrk``. The peer is a hello of uvicorn, in the same interpreter; the app
is a component made from Python by componentize-py, which is the slowest guest there is: an interpreter, fresh for each
request; and one made from JavaScript by componentize-js.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.apps import SPIN_TOML
from tests.components import javascript
from tests.components.build import component
from tests.e2e import http_app, leftovers, spin_app
from tests.e2e.box import Box, until
from tests.e2e.containerd import LAUNCHERS, VERSIONS, Containerd, running

_NATIVE = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello from a component\\n"})
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


def pss(pid: int) -> float:
    """MiB of proportional set size of a process and all below it."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)
    return (int(found[1]) if found else 0) / 1024 + sum(pss(int(child)) for child in below)


@contextmanager
def native(processes: int) -> Iterator[tuple[str, int]]:
    port = http_app.free_port()
    flags = ["--port", str(port), "--workers", str(processes), "--http=h11", "--lifespan=off", "--log-level=critical"]
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "native_hello.py").write_text(_NATIVE)
        command = [sys.executable, "-m", "uvicorn", "native_hello:app", *flags]
        with subprocess.Popen(command, cwd=directory) as process:
            try:
                until(lambda: http_app.answers(f"127.0.0.1:{port}"), "uvicorn to listen")
                yield f"127.0.0.1:{port}", process.pid
            finally:
                process.terminate()


@contextmanager
def served(program: Path, processes: int, launchers: Path = LAUNCHERS) -> Iterator[tuple[str, int]]:
    with (
        tempfile.TemporaryDirectory() as directory,
        http_app.running(
            program, Path(directory, "log"), launchers=launchers, SHIMD_HTTP_PROCESSES=str(processes)
        ) as app,
    ):
        yield app.address, app.process.pid


@contextmanager
def spin(processes: int) -> Iterator[tuple[str, int]]:
    """The least application of spin-sdk, in a container."""
    with running(VERSIONS[0], Containerd) as containerd:
        box = Box(containerd, "bench-http", spin_app.SPIN)
        containerd.import_image(
            spin_app.image(containerd.directory / "spin.tar", spin_app.SPIN.image, SPIN_TOML), box.namespace
        )
        with spin_app.running(box, SHIMD_HTTP_PROCESSES=str(processes)) as app:
            yield app.address, int(box.ctr("tasks", "ls").out.splitlines()[1].split()[1])
        box.close()
        leftovers.remove_parents(box.namespace)


def measure(before: Path | None) -> list[dict[str, object]]:
    """:param before: the programs of another installation, which serve the Python component, too"""
    rows = []
    servers: dict[str, Callable[[int], AbstractContextManager[tuple[str, int]]]] = {
        "uvicorn, native": native,
        "wasi-http, a Python component": partial(served, component("proxy", "proxy")),
        "wasi-http, a JavaScript component": partial(served, javascript.component("fetch")),
        "Spin, a Python component": spin,
    }
    if before is not None:
        servers["wasi-http, a Python component, before"] = partial(
            served, component("proxy", "proxy"), launchers=before
        )
    for processes in (1, 2):
        for name, server in servers.items():
            with server(processes) as (address, pid):
                load(address, 1)
                time.sleep(0.5)
                row: dict[str, object] = {"app": name, "processes": processes, "pss_mib": round(pss(pid), 1)}
                for connections in CONNECTIONS:
                    rate, latency = load(address, connections)
                    row[f"rate_{connections}"], row[f"ms_{connections}"] = round(rate, 1), round(latency, 2)
                rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    parser.add_argument(
        "--before", type=Path, metavar="BIN", help="the .venv/bin of a checkout of the commit before, to compare with"
    )
    print(json.dumps(measure(parser.parse_args().before), indent=1))


if __name__ == "__main__":
    main()
