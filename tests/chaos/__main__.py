"""Chaos for as long as is asked, a plan after the other, on each containerd in turn: ``make chaos``."""

import argparse
import secrets
import shutil
import sys
import time
from pathlib import Path

from tests.chaos import plan as plans
from tests.chaos.record import Record
from tests.chaos.run import carry_out, chaos_containerd, judge
from tests.e2e.containerd import VERSIONS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first plan; 0: any")
    parser.add_argument("--seconds", type=float, default=600, help="until no plan is begun any more")
    parser.add_argument("--length", type=float, default=60, help="seconds that each plan is for")
    parser.add_argument("--rate", type=float, default=3, help="lives a second")
    parser.add_argument("--strike-rate", type=float, default=1, help="strikes a second")
    parser.add_argument("--containerd", default="", choices=["", *(it.name for it in VERSIONS)], help="else in turn")
    parser.add_argument("--lives", default="", help="these of the plan only: 3,7-9, or none")
    parser.add_argument("--strikes", default="", help="likewise")
    parser.add_argument("--plan", action="store_true", help="tell the plan, and do nothing")
    parser.add_argument("--save", type=Path, help="a directory for the record of each run that has findings")
    options = parser.parse_args()
    versions = [it for it in VERSIONS if options.containerd in ("", it.name)]
    seed, until, bad = options.seed or secrets.randbelow(1 << 31), time.monotonic() + options.seconds, 0
    for number in range(sys.maxsize):
        plan = plans.draw(seed + number, options.length, options.rate, options.strike_rate)
        plan = plan.only(plans.chosen(options.lives), plans.chosen(options.strikes))
        if options.plan:
            print("\n".join(plan.lines()))
            return 0
        version = versions[number % len(versions)]
        print(plan.replay(version.name), flush=True)
        with chaos_containerd(version) as containerd:
            record = carry_out(plan, containerd)
            findings = judge(plan, record)
            if findings and options.save:
                _save(options.save / f"{plan.seed}-{version.name}", record, containerd.directory)
        bad += bool(findings)
        if time.monotonic() > until:
            print(f"{number + 1} plans, {bad} with findings")
            break
    return 1 if bad else 0


def _save(path: Path, record: Record, directory: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    record.save(path / "record.jsonl")
    for log in [directory / "containerd.log", *(directory / "shimd").glob("shimd.log*")]:
        shutil.copy(log, path)


if __name__ == "__main__":
    raise SystemExit(main())
