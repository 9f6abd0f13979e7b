"""``make test``: the whole suite as three processes at a time, or a part of it as one.

Much of an end-to-end test is waiting for others, and a machine has two processors at least. The parts take about as
long as each other; what they build is built by one of them (``tests/alone.py``). They are plain processes, and not
pytest-xdist's, which have a second thread: tests fork.
"""

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHOLE = ["tests"]
#: Of tests/e2e itself, what the second and the third process run; all else is the first's.
SECOND = (
    "control", "cri", "daemon", "daemon_death", "events", "few_descriptors", "files", "hooks", "images", "isolation",
    "links", "logs", "native", "oci", "restart", "run", "rust", "slight", "slight_pod", "spin_composed", "spin_js",
    "spin_newer", "spin_servers", "spin_seven", "spin_telemetry", "terminal", "words",
)  # fmt: skip
THIRD = (
    "bad_input", "benchmarks", "chaos", "cli", "cli_run", "http", "http_bad_clients", "http_beside", "http_hostile",
    "http_js", "http_newer", "http_outgoing", "http_pod", "http_trailers", "places", "sockets", "spin", "spin_artifact",
    "spin_local", "spin_network", "spin_outbound", "spin_pod", "spin_triggers", "stranger", "trust", "upgrade", "walls",
    "wasi_tls",
)  # fmt: skip


def parts() -> list[list[str]]:
    """Paths for pytest; together they are the suite."""
    tests = ROOT / "tests"
    rest = [path for path in tests.iterdir() if path.is_dir() and path.name != "e2e" and any(path.glob("**/test_*.py"))]
    rest += [path for path in (tests / "e2e").iterdir() if path.is_dir() and any(path.glob("test_*.py"))]
    files = sorted((tests / "e2e").glob("test_*.py"))
    others = [[path for path in files if path.stem.removeprefix("test_") in names] for names in (SECOND, THIRD)]
    first = [*sorted(rest), *(path for path in files if not any(path in part for part in others))]
    return [[str(path.relative_to(ROOT)) for path in part] for part in (first, *others)]


def main() -> int:
    pytest = [sys.executable, "-m", "pytest"]
    wanted = sys.argv[1:] or WHOLE
    if wanted != WHOLE:
        return subprocess.run([*pytest, *wanted], cwd=ROOT, check=False).returncode
    first, *others = parts()
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in others]
        running = [
            subprocess.Popen([*pytest, *part], cwd=ROOT, stdout=output, stderr=output)
            for part, output in zip(others, outputs, strict=True)
        ]
        code = subprocess.run([*pytest, *first], cwd=ROOT, check=False).returncode
        for process, output in zip(running, outputs, strict=True):
            code = process.wait() or code
            output.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(output.read())
    return code


if __name__ == "__main__":
    raise SystemExit(main())
