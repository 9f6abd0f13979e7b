"""Many tasks beside many idle apps, by one daemon: whether anything grows. ``make soak`` writes soak.svg.

What is looked at every so many tasks: memory (proportional set size) and descriptors of the daemon, the keeper, the
fork server and the zygote, and how long State takes; at the end, how long the daemon's event loop was held at a time.
"""

import argparse
import json
import os
import platform
import queue
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.caller import Caller, sink
from benchmarks.shims import EVENTS, Shim, cleaned, environment, known, processes, start, workplace
from benchmarks.tasks import Bench, Life, create_request, end, pss, work
from shimd.api.containerd.task import v3 as api
from tests.chaos.kernel import role

ROLES = ("daemon", "keeper", "fork server", "zygote")
#: Tasks at a time; calls of State for one look.
_PARALLEL, _CALLS = 4, 100
_LOOKS = 40


@dataclass(frozen=True)
class Look:
    """After so many tasks."""

    tasks: int
    apps: int
    memory: dict[str, float]
    """MiB, by role."""
    descriptors: dict[str, int]
    state_ms: tuple[float, float]
    """The median, and what 95 of 100 take at most."""


class Soak:
    def __init__(self, directory: Path, shim: Shim) -> None:
        self._bench, self._shim, self._directory = Bench(directory), shim, directory
        self.looks: list[Look] = []
        self._done = 0
        self._idle: list[str] = []

    def run(self, tasks: int, apps: int, daemon: int) -> None:
        self._address = start(self._shim, self._bundle(self._shim.idle), self._directory)
        self._add_idle(1)
        self._lead(_PARALLEL)
        self._done = 0
        self._look()
        self._add_idle(apps - 1)
        self._look()
        os.kill(daemon, signal.SIGUSR2)  # from here on it is under load, and has begun
        for _ in range(_LOOKS):
            self._lead(tasks // _LOOKS)
            self._look()
        while len(self._idle) > 1:
            end(self._shim, self._address, self._idle.pop())
        self._look()
        end(self._shim, self._address, self._idle.pop())

    def _bundle(self, args: list[str]) -> Path:
        return self._bench.bundle(self._shim, args)

    def _add_idle(self, number: int) -> None:
        for _ in range(number):
            bundle = self._bundle(self._shim.idle)
            with Caller(self._address) as caller:
                caller.call("Create", create_request(self._shim, bundle))
                caller.call("Start", bytes(api.StartRequest(id=bundle.name)))
            self._idle.append(bundle.name)

    def _lead(self, tasks: int) -> None:
        lives: queue.SimpleQueue[Life] = queue.SimpleQueue()
        for _ in range(tasks):
            lives.put(Life.of(self._shim, self._bundle(self._shim.hello)))
        with ThreadPoolExecutor(_PARALLEL) as pool:
            for done in [pool.submit(work, self._address, lives) for _ in range(_PARALLEL)]:
                done.result()
        self._done += tasks

    def _look(self) -> None:
        found: dict[str, list[int]] = {each: [] for each in ROLES}
        for pid in processes(self._directory):
            with suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                if (each := "daemon" if "benchmarks.held_loop" in line else role(pid, line)) in found:
                    found[each].append(pid)
        memory = {each: round(sum(map(pss, pids)), 2) for each, pids in found.items()}
        descriptors = {each: sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids) for each, pids in found.items()}
        look = Look(self._done, len(self._idle), memory, descriptors, self._state())
        print(look, flush=True)
        self.looks.append(look)

    def _state(self) -> tuple[float, float]:
        request = bytes(api.StateRequest(id=self._idle[0]))
        times = []
        with Caller(self._address) as caller:
            for _ in range(_CALLS):
                began = time.perf_counter()
                caller.call("State", request)
                times.append(1000 * (time.perf_counter() - began))
        times.sort()
        return round(statistics.median(times), 3), round(times[_CALLS * 95 // 100], 3)


@contextmanager
def daemon(directory: Path, held: Path) -> Iterator[int]:
    """One whose event loop is watched; the launcher finds it."""
    env = {**os.environ, **environment(directory)}
    command = [sys.executable, "-m", "benchmarks.held_loop", str(held), "serve"]
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    while not (directory / "runtime/launch.sock").exists():
        time.sleep(0.05)
    yield process.pid
    process.terminate()
    process.wait(30)


def measure(tasks: int, apps: int) -> dict[str, object]:
    shim = next(shim for shim in known() if shim.name == "wasmtime")
    with workplace() as directory, cleaned(directory), sink(directory / EVENTS):
        held = directory / "held.json"
        with daemon(directory, held) as pid:
            soak = Soak(directory, shim)
            soak.run(tasks, apps, pid)
        return {
            "machine": {"kernel": platform.release(), "processor": report.processor()},
            "looks": [asdict(look) for look in soak.looks],
            "held": json.loads(held.read_text()),
        }


def plot(looks: Sequence[Look]) -> str:
    """Lines over the number of tasks, a panel for each thing that was looked at."""
    panels: list[tuple[str, dict[str, list[float]]]] = [
        ("memory, MiB", {each: [look.memory[each] for look in looks] for each in ROLES}),
        ("descriptors", {each: [float(look.descriptors[each]) for look in looks] for each in ROLES}),
        ("State, ms", {name: [look.state_ms[at] for look in looks] for at, name in enumerate(("median", "95 %"))}),
    ]
    height = 180
    parts = [_panel(title, lines, looks, number * height) for number, (title, lines) in enumerate(panels)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{height * len(panels)}" '
        f'font-family="sans-serif" font-size="12"><rect width="640" height="{height * len(panels)}" fill="white"/>'
        f"{''.join(parts)}</svg>\n"
    )


_COLOURS = ("#4a7ebb", "#c0504d", "#9bbb59", "#8064a2")
_LEFT, _WIDTH, _HIGH = 60, 440, 120


def _panel(title: str, lines: dict[str, list[float]], looks: Sequence[Look], top: int) -> str:
    most, last = max(map(max, lines.values())) or 1, max(look.tasks for look in looks) or 1
    bottom = top + 30 + _HIGH
    parts = [
        f'<text x="10" y="{top + 18}" font-weight="bold">{title}</text>',
        f'<text x="{_LEFT - 6}" y="{top + 36}" text-anchor="end">{most:.4g}</text>',
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{_LEFT + _WIDTH}" y="{bottom + 16}" text-anchor="end">{last} tasks</text>',
        f'<path d="M{_LEFT} {top + 30}V{bottom}H{_LEFT + _WIDTH}" fill="none" stroke="black"/>',
    ]
    for number, (name, values) in enumerate(lines.items()):
        points = " ".join(
            f"{_LEFT + _WIDTH * look.tasks / last:.0f},{bottom - _HIGH * value / most:.1f}"
            for look, value in zip(looks, values, strict=True)
        )
        colour = _COLOURS[number]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{_LEFT + _WIDTH + 10}" y="{top + 44 + 18 * number}" fill="{colour}">{name}</text>')
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--apps", type=int, default=1_000, help="idle ones, all the while")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    found = measure(options.tasks, options.apps)
    (options.out / "soak.json").write_text(json.dumps(found, indent=1) + "\n")
    looks = [Look(**{**look, "state_ms": tuple(look["state_ms"])}) for look in found["looks"]]  # type: ignore[attr-defined]
    (options.out / "soak.svg").write_text(plot(looks))
    print(f"the event loop was held, in seconds, for {found['held']} at the most")


if __name__ == "__main__":
    main()
