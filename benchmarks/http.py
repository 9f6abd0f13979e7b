"""HTTP apps beside other servers, in one run: requests a second, latency and memory, as ratios.

``python -m benchmarks.http`` (root) needs Debian's ``wrk``. ``--shim NAME=PATH`` adds a shim of containerd's,
``--server 'NAME=COMMAND'`` any other server, with ``{address}`` and ``{program}`` in its command line. All serve the
same components; who does not serve one is left out there, and it is said why. The servers of a component take turns.
"""

import argparse
import json
import platform
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks import http_report
from benchmarks.http_report import OURS
from benchmarks.http_servers import DoesNotServe, Server, answered, by_command, by_containerd, inside
from benchmarks.report import processor
from benchmarks.wrk import Failed, Load, Work, load
from shimd.engines.registry import lacking
from tests.components import javascript, rust
from tests.components.build import component, newer
from tests.e2e.box import until
from tests.e2e.containerd import LAUNCHERS, VERSIONS, Version
from tests.e2e.http_app import answers

PORTABLE = f"{OURS}, portable"
CONNECTIONS = (1, 8, 64, 256)
#: Bodies of this size are streamed in pieces of 4 KiB.
LARGE = 2**20
HELLO = Work("hello", "/", answer=10)
#: Apps whose memory is measured together: a few, and as many as a node may have.
APPS, MANY = 10, 30
STARTS = 11
#: What outgoing requests go to. A socket that says that it is TCP: asyncio sets TCP_NODELAY only there.
_ASKED = """
import socket, sys, uvicorn

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1024")]})
    await send({"type": "http.response.body", "body": bytes(1024)})

listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
host, port = sys.argv[1].split(":")
listener.bind((host, int(port)))
config = uvicorn.Config(app, http="h11", loop="asyncio", lifespan="off", log_level="critical", access_log=False)
uvicorn.Server(config).run(sockets=[listener])
"""


@dataclass(frozen=True)
class Guest:
    """A component, and what it is asked."""

    name: str
    program: Path
    works: Sequence[Work] = (HELLO,)


@dataclass(frozen=True)
class Point:
    """What was measured of one server."""

    guest: str
    work: str
    connections: int
    server: str
    loads: list[Load]
    """By round."""

    @property
    def rate(self) -> float:
        return statistics.median(it.rate for it in self.loads)


def guests(asked: str) -> list[Guest]:
    """
    :param asked: the address that outgoing requests go to
    """
    works = (
        HELLO,
        Work("1 KB echoed", "/echo", body=1024, answer=1024),
        Work("1 MB echoed", "/echo", body=LARGE, answer=LARGE),
        Work("1 MB streamed", f"/pieces?{LARGE // 4096}", answer=LARGE),
        Work("asks another", f"/ask?{asked}/", answer=1024),
    )
    return [
        Guest("Rust, WASI 0.2", rust.component("server"), works),
        Guest("Rust, WASI 0.3", rust.component("newer"), works),
        Guest("JavaScript", javascript.component("fetch")),
        Guest("Python", component("proxy", "proxy")),
        Guest("Python, WASI 0.3", newer()),
    ]


def servers(options: argparse.Namespace, version: Version) -> list[Server]:
    found = [by_containerd(OURS, "io.containerd.wasmtime.v1", version)]
    if lacking("wasmtime-py") is None:
        run = f"{LAUNCHERS}/shimd run --engine wasmtime-py --network"
        found.append(by_command(PORTABLE, f"{run} --env WASMTIME_HTTP_PROXY_SOCKET_ADDR={{address}} {{program}}"))
    for name, _, path in (item.partition("=") for item in options.shim):
        found.append(by_containerd(name, path, version))
    for name, _, command in (item.partition("=") for item in options.server):
        found.append(by_command(name, command))
    return found


@contextmanager
def asked(directory: Path) -> Iterator[str]:
    script = directory / "asked.py"
    script.write_text(_ASKED)
    with by_command("uvicorn", f"{LAUNCHERS}/python {script} {{address}}").serve(script, directory) as address:
        yield address


class Run:
    def __init__(self, directory: Path, seconds: int, rounds: int, connections: Sequence[int]) -> None:
        self.directory, self.seconds, self.rounds, self.connections = directory, seconds, rounds, connections
        self.points: list[Point] = []
        self.left_out: dict[str, str] = {}

    def guest(self, guest: Guest, servers: Sequence[Server]) -> None:
        """All servers of a component, by turns."""
        with ExitStack() as stack:
            there: dict[str, str] = {}
            for server in servers:
                try:
                    there[server.name] = stack.enter_context(server.serve(guest.program, self.directory))
                except DoesNotServe as error:
                    self.left_out[f"{server.name}: {guest.name}"] = str(error)
            for work in guest.works:
                for connections in self.connections:
                    self._point(guest, work, connections, there)

    def _point(self, guest: Guest, work: Work, connections: int, there: Mapping[str, str]) -> None:
        measure = partial(load, work=work, connections=connections, seconds=self.seconds, directory=self.directory)
        loads: dict[str, list[Load]] = {name: [] for name in there}
        for _ in range(self.rounds):
            for name, address in there.items():
                try:
                    loads[name].append(measure(address))
                except Failed as error:
                    self.left_out[f"{name}: {guest.name}, {work.name}, {connections} connections"] = str(error)
        for name, found in loads.items():
            if len(found) == self.rounds:
                self.points.append(Point(guest.name, work.name, connections, name, found))
                print(f"{guest.name}, {work.name}, {connections}: {name}: {self.points[-1].rate:,.0f}", flush=True)


@dataclass(frozen=True)
class Memory:
    """MiB of proportional set size per app, of :data:`APPS`, all processes counted."""

    idle: float
    """Nobody has asked it."""
    answered: float
    """It has answered once."""
    loaded: float
    """It has had a second of load."""
    of_many: float
    """Of :data:`MANY` that have answered once."""


def memory(server: Server, guest: Guest, version: Version, directory: Path) -> Memory:
    with inside(version, server.runtime, guest.program) as place:
        for address in [place.start(f"app{number}") for number in range(MANY)]:
            answered(address)
        of_many = place.memory() / MANY
    with inside(version, server.runtime, guest.program) as place:
        addresses = [place.start(f"app{number}") for number in range(APPS)]
        for address in addresses:
            until(partial(answers, address), "an app to listen")
        idle = place.memory()
        for address in addresses:
            answered(address)
        once = place.memory()
        for address in addresses:
            load(address, HELLO, 8, 1, directory)
        return Memory(idle / APPS, once / APPS, place.memory() / APPS, of_many)


@dataclass(frozen=True)
class Start:
    """Milliseconds after ``ctr run -d``, medians of :data:`STARTS`."""

    answer: float
    """To a server's first answer."""
    words: float | None
    """To what a command says; ``None``: the shim has lost that."""


def start(server: Server, guest: Guest, version: Version) -> Start:
    with inside(version, server.runtime, guest.program) as place:
        place.first_answer("warm")  # the first compiles
        speaks = place.first_words("speaks") is not None
        answers, words = [], []
        for number in range(STARTS):
            answers.append(place.first_answer(f"server{number}") * 1000)
            if speaks and (said := place.first_words(f"command{number}")) is not None:
                words.append(said * 1000)
        return Start(statistics.median(answers), statistics.median(words) if words else None)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    parser.add_argument("--shim", action="append", default=[], metavar="NAME=PATH", help="another shim of containerd's")
    parser.add_argument("--server", action="append", default=[], metavar="NAME=COMMAND", help="another server")
    parser.add_argument("--only", default="", help="components whose name begins so")
    parser.add_argument("--seconds", type=int, default=4, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", default=",".join(map(str, CONNECTIONS)))
    parser.add_argument("--containerd", default="v2", choices=[version.name for version in VERSIONS])
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    version = next(it for it in VERSIONS if it.name == options.containerd)
    connections = [int(number) for number in options.connections.split(",")]
    with tempfile.TemporaryDirectory(prefix="shimd-bench-http-") as name, asked(Path(name)) as address:
        run = Run(Path(name), options.seconds, options.rounds, connections)
        there, chosen = servers(options, version), [it for it in guests(address) if it.name.startswith(options.only)]
        for guest in chosen:
            run.guest(guest, there)
        shims = [] if options.no_memory else [it for it in there if it.runtime]
        starts = {it.name: asdict(start(it, chosen[0], version)) for it in shims}
        memories = {it.name: asdict(memory(it, chosen[0], version, Path(name))) for it in shims}
    found = {
        "machine": {"kernel": platform.release(), "python": platform.python_version(), "processor": processor()},
        "seconds": options.seconds,
        "rounds": options.rounds,
        "points": [{**asdict(it), "rate": it.rate} for it in run.points],
        "starts": starts,
        "memory": memories,
        "left_out": run.left_out,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "http.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "http.md").write_text(http_report.table(found))
    (options.out / "http.svg").write_text(http_report.plot(found))
    print(http_report.table(found))


if __name__ == "__main__":
    main()
