"""Runs all programs on all engines and writes ``docs/programs.md``. Fails if anything did not go as expected."""

import sys

from tests.e2e import trixie
from tests.e2e.containerd import REPOSITORY
from tests.programs import report
from tests.programs.runner import outcomes
from tests.programs.suite import ENGINES, runs

DOCUMENT = REPOSITORY / "docs/programs.md"


def main() -> int:
    done = [
        outcome
        for engine in ENGINES
        if trixie.where(engine) is not None
        for outcome in outcomes(engine, [program for program, it in runs() if it == engine])
    ]
    DOCUMENT.write_text(report.render(done))
    failed = [outcome for outcome in done if outcome.failure]
    print(f"{len(done) - len(failed)} of {len(done)} runs went as expected; see {DOCUMENT}")
    for outcome in failed:
        print(f"{outcome.name} on {outcome.engine}: {outcome.failure}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
