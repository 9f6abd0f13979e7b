"""``make test``: the whole suite as some processes at a time, or a part of it as one.

Much of an end-to-end test is waiting for others, and a machine has two processors at least. What tests build is built
by one of the processes (``tests/alone.py``); ``tests/scheduling.py`` says who runs what.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHOLE = ["tests"]
#: Three keep two processors busy.
PROCESSES = 3
_SHARED = ("-p", "tests.scheduling", "-n", str(PROCESSES), "--dist", "loadscope", "--no-loadscope-reorder")


def main() -> int:
    wanted = sys.argv[1:] or WHOLE
    shared = _SHARED if wanted == WHOLE else ()
    return subprocess.run([sys.executable, "-m", "pytest", *shared, *wanted], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
