"""Spin applications beside plain components, in one run: requests a second, starts and memory.

``python -m benchmarks.spin`` (root) needs Debian's ``wrk``. Applications and components take turns, each in a container
of its own: the same hello in Rust as both, and one of the crate spin-sdk, which also reads a key of a store.
"""

import argparse
import json
import platform
import statistics
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.http import HELLO
from benchmarks.http_servers import Place, answered, inside
from benchmarks.report import processor
from benchmarks.shims import SPIN_TOML
from benchmarks.wrk import Work, load
from tests.components import rust
from tests.e2e.containerd import VERSIONS, Version

CONNECTIONS = (1, 8, 64)
#: Apps whose memory is measured together.
APPS = (1, 10, 30)
STARTS = 15
_MANIFEST = f'{SPIN_TOML}key_value_stores = ["default"]\nsqlite_databases = ["default"]\n'


@dataclass(frozen=True)
class Kind:
    name: str
    runtime: str
    program: str
    """Of ``tests/components/rust``."""
    manifest: str = ""

    def place(self, version: Version) -> AbstractContextManager[Place]:
        return inside(version, self.runtime, rust.component(self.program), self.manifest)


PLAIN = Kind("a component", "io.containerd.wasmtime.v1", "server")
SPIN = Kind("Spin", "io.containerd.spin.v2", "server", _MANIFEST)
SDK = Kind("Spin, spin-sdk 3.1", "io.containerd.spin.v2", "spin", _MANIFEST)
#: What is asked of whom; all are compared with the first.
LOADS = {
    "hello": (PLAIN, HELLO),
    "hello by Spin": (SPIN, HELLO),
    "hello by Spin, spin-sdk 3.1": (SDK, HELLO),
    "a key is read": (SDK, Work("key", "/value/counter")),
    "a key is read and written": (SDK, Work("counter", "/counter")),
}


def rates(version: Version, seconds: int, rounds: int, directory: Path) -> dict[str, dict[str, float]]:
    """Requests a second, by load and number of connections: medians."""
    with ExitStack() as stack:
        there = {
            kind.name: stack.enter_context(stack.enter_context(kind.place(version)).app("app"))
            for kind in (PLAIN, SPIN, SDK)
        }
        load(there[SDK.name], LOADS["a key is read and written"][1], 1, 1, directory)  # the key is there then
        found: dict[str, dict[str, float]] = {name: {} for name in LOADS}
        for connections in CONNECTIONS:
            each: dict[str, list[float]] = {name: [] for name in LOADS}
            for _ in range(rounds):
                for name, (kind, work) in LOADS.items():
                    each[name].append(load(there[kind.name], work, connections, seconds, directory).rate)
            for name, measured in each.items():
                found[name][str(connections)] = statistics.median(measured)
                print(f"{name}, {connections}: {found[name][str(connections)]:,.0f}", flush=True)
        return found


def starts(version: Version) -> dict[str, float]:
    """Milliseconds after ``ctr run -d``, medians: to a server's first answer, and to what a command says."""
    with PLAIN.place(version) as plain, SPIN.place(version) as spin:
        found: dict[str, list[float]] = {"a command's words": [], "a component's answer": [], "Spin's answer": []}
        for number in range(STARTS + 1):
            said = plain.first_words(f"command{number}")
            assert said is not None
            each = (said, plain.first_answer(f"plain{number}"), spin.first_answer(f"spin{number}"))
            for name, seconds in zip(found, each, strict=True):
                found[name].append(seconds * 1000)
    return {name: statistics.median(measured[1:]) for name, measured in found.items()}  # the first compiles


def memory(version: Version) -> dict[str, dict[str, float]]:
    """MiB of proportional set size an app that has answered once, by their number; all processes counted."""
    found: dict[str, dict[str, float]] = {PLAIN.name: {}, SPIN.name: {}}
    for kind in (PLAIN, SPIN):
        with kind.place(version) as place:
            there = 0
            for most in APPS:
                addresses = [place.start(f"app{number}") for number in range(there, most)]
                for address in addresses:
                    answered(address)
                there = most
                found[kind.name][str(most)] = place.memory() / most
    return found


def table(found: Mapping[str, Any]) -> str:
    header = " | ".join(f"{connections} connections" for connections in CONNECTIONS)
    lines = [f"| requests a second, × of the first | {header} |", f"|---|{'---|' * len(CONNECTIONS)}"]
    first = found["rates"]["hello"]
    for name, measured in found["rates"].items():
        cells = [f"{rate:,.0f} ({rate / first[key]:.2f})" for key, rate in measured.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| after `ctr run -d`, ms | |", "|---|---|"]
    lines += [f"| {name} | {measured:.0f} |" for name, measured in found["starts"].items()]
    lines += ["", f"| PSS per app, MiB | {' | '.join(f'{size} apps' for size in APPS)} |", f"|---|{'---|' * len(APPS)}"]
    for name, sizes in found["memory"].items():
        lines.append(f"| {name} | {' | '.join(f'{size:.1f}' for size in sizes.values())} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spin", description=__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--containerd", default="v2", choices=[version.name for version in VERSIONS])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    version = next(it for it in VERSIONS if it.name == options.containerd)
    with tempfile.TemporaryDirectory(prefix="shimd-bench-spin-") as name:
        found = {
            "rates": rates(version, options.seconds, options.rounds, Path(name)),
            "starts": starts(version),
            "memory": memory(version),
        }
    machine = {"kernel": platform.release(), "python": platform.python_version(), "processor": processor()}
    (options.out / "spin.json").write_text(json.dumps({"machine": machine, **found}, indent=1) + "\n")
    (options.out / "spin.md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    main()
