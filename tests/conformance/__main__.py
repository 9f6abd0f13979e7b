"""Runs all cases on all engines and writes ``docs/conformance.md``. Fails if anything did not go as expected."""

import sys
from pathlib import Path

from tests.conformance import report
from tests.conformance.runner import runner
from tests.conformance.suite import runs

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"


def main() -> int:
    with runner() as made:
        outcomes = made.run_all(runs())
    DOCUMENT.write_text(report.render(outcomes))
    passed = sum(outcome.failure is None for outcome in outcomes)
    print(f"{passed} of {len(outcomes)} runs pass; see {DOCUMENT}")
    surprises = report.unexpected(outcomes)
    for surprise in surprises:
        print(surprise, file=sys.stderr)
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
