"""``make test``: the whole suite as two processes at a time, or a part of it as one.

Much of an end-to-end test is waiting for others, and a machine has two processors at least. The halves take about as
long as each other; what they build is built by one of them (``tests/alone.py``).
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHOLE = ["tests"]
#: What is not in ``tests/e2e`` itself, and of that these; all else is the other half.
WITH_THE_REST = (
    "audit", "bare", "benchmarks", "chaos", "compilation", "critest", "crun", "daemon_death", "demo", "node", "places",
    "rust", "slight", "slight_pod", "sockets", "spin", "spin_artifact", "spin_outbound", "spin_pod", "spin_triggers",
    "stranger", "trixie", "wasmedge",
)  # fmt: skip


def halves() -> tuple[list[str], list[str]]:
    """Paths for pytest; together they are the suite."""
    tests = ROOT / "tests"
    rest = [path for path in tests.iterdir() if path.is_dir() and path.name != "e2e" and any(path.glob("**/test_*.py"))]
    rest += [path for path in (tests / "e2e").iterdir() if path.is_dir() and any(path.glob("test_*.py"))]
    files = sorted((tests / "e2e").glob("test_*.py"))
    first = [path for path in files if path.stem.removeprefix("test_") in WITH_THE_REST]
    second = [path for path in files if path not in first]
    return [str(path.relative_to(ROOT)) for path in (*sorted(rest), *first)], [
        str(path.relative_to(ROOT)) for path in second
    ]


def main() -> int:
    pytest = [sys.executable, "-m", "pytest"]
    wanted = sys.argv[1:] or WHOLE
    if wanted != WHOLE:
        return subprocess.run([*pytest, *wanted], cwd=ROOT, check=False).returncode
    first, second = halves()
    with tempfile.TemporaryFile() as output:
        other = subprocess.Popen([*pytest, *second], cwd=ROOT, stdout=output, stderr=output)
        code = subprocess.run([*pytest, *first], cwd=ROOT, check=False).returncode
        code = other.wait() or code
        output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(output.read())
    return code


if __name__ == "__main__":
    raise SystemExit(main())
