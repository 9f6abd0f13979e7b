"""Runs all programs on all engines and writes ``docs/programs.md``. Fails if anything did not go as expected.

With names as arguments: those programs alone; the document keeps what it says of the others.
"""

import sys
from collections.abc import Sequence

from tests.e2e import trixie
from tests.e2e.containerd import REPOSITORY
from tests.programs import report
from tests.programs.runner import outcomes
from tests.programs.suite import ENGINES, Program, runs

DOCUMENT = REPOSITORY / "docs/programs.md"


def main(names: Sequence[str]) -> int:
    done = [
        outcome
        for engine in ENGINES
        if trixie.where(engine) is not None
        for outcome in outcomes(engine, _chosen(engine, names))
    ]
    DOCUMENT.write_text(report.render(done, DOCUMENT.read_text() if names else ""))
    failed = [outcome for outcome in done if outcome.failure]
    print(f"{len(done) - len(failed)} of {len(done)} runs went as expected; see {DOCUMENT}")
    for outcome in failed:
        print(f"{outcome.name} on {outcome.engine}: {outcome.failure}", file=sys.stderr)
    return 1 if failed else 0


def _chosen(engine: str, names: Sequence[str]) -> list[Program]:
    return [program for program, it in runs() if it == engine and (not names or program.name in names)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
