"""Run everything, interleaved, and write a table, the numbers and a plot."""

import argparse
import json
import platform
import statistics
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.caller import sink
from benchmarks.latency import latencies
from benchmarks.shims import EVENTS, Shim, cleaned, known, workplace
from benchmarks.tasks import Bench
from shimd.ttrpc import StatusError
from tests.e2e.containerd import VERSIONS

PARALLEL = (1, 8)


def refusals(bench: Bench, shims: list[Shim]) -> dict[str, str]:
    """Those that run nothing on this machine, with what they say (crun on hybrid cgroups)."""
    found = {}
    with sink(bench.directory / EVENTS):
        for shim in shims:
            try:
                bench.try_once(shim)
            except StatusError as error:
                found[shim.name] = str(error)
    return found


def task_rates(bench: Bench, shims: list[Shim], tasks: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Of each shim and number in parallel, tasks a second in each round."""
    rates: dict[str, dict[str, list[float]]] = {
        shim.name: {str(parallel): [] for parallel in PARALLEL} for shim in shims
    }
    with sink(bench.directory / EVENTS) as events:
        for _ in range(rounds):
            for parallel in PARALLEL:
                for shim in shims:
                    rates[shim.name][str(parallel)].append(bench.rate(shim, tasks // rounds, parallel, events))
    return rates


def memory(directory: Path, shims: list[Shim], sizes: list[int]) -> dict[str, dict[str, float]]:
    """Of each shim and number of apps, MiB of proportional set size per app."""
    found: dict[str, dict[str, float]] = {shim.name: {} for shim in shims}
    for size in sizes:
        for shim in shims:
            # A daemon of its own for each engine: what the other keeps is not this one's.
            bench = Bench(Path(tempfile.mkdtemp(dir=directory)))
            with sink(bench.directory / EVENTS), cleaned(bench.directory):
                found[shim.name][str(size)] = bench.memory(shim, size)
    return found


def measure(shims: list[Shim], *, quick: bool, version: str) -> dict[str, object]:
    sizes, tasks, rounds, runs = ([1, 3], 8, 2, 2) if quick else ([1, 10, 50], 200, 4, 20)
    with workplace() as directory, cleaned(directory):
        bench = Bench(directory)
        commands = [shim for shim in shims if shim.files is None]
        left_out = refusals(bench, commands)
        shims, commands = ([it for it in some if it.name not in left_out] for some in (shims, commands))
        rates = task_rates(bench, commands, tasks, rounds)
        pss = memory(directory, shims, sizes)
    return {
        "machine": {"kernel": platform.release(), "python": platform.python_version(), "processor": report.processor()},
        "containerd": version,
        "tasks_per_second": {
            name: {parallel: statistics.median(values) for parallel, values in each.items()}
            for name, each in rates.items()
        },
        "tasks_per_second_by_round": rates,
        "pss_mib_per_app": pss,
        "left_out": left_out,
        "ctr_run_ms": latencies(version, commands, runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few tasks and apps: does it run at all?")
    parser.add_argument("--only", default="", help="these shims only, separated by commas; runc is always there")
    parser.add_argument(
        "--shim", action="append", default=[], metavar="NAME=PATH", help="another shim, for /hello.wasm; absolute path"
    )
    parser.add_argument(
        "--containerd",
        default="debian",
        choices=[version.name for version in VERSIONS],
        help="which one ctr run goes through",
    )
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    wanted = {*options.only.split(","), report.REFERENCE} if options.only else None
    shims = [shim for shim in known() if wanted is None or shim.name in wanted]
    for name, _, path in (item.partition("=") for item in options.shim):
        shims.append(Shim(name, path, ["/hello.wasm"], ["/idle.wasm"], shared=False))
    found = measure(shims, quick=options.quick, version=options.containerd)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    (options.out / "README.md").write_text(report.table(found))
    (options.out / "results.svg").write_text(report.plot(found))
    print(report.table(found))


if __name__ == "__main__":
    main()
