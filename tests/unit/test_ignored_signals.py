"""The suite does not depend on what has started it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

STARTED = """import subprocess, sys
import tests.conftest
with subprocess.Popen(["sleep", "60"]) as child:
    child.send_signal(int(sys.argv[1]))
print(child.returncode)
"""


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_that_is_ignored_here_ends_what_a_test_starts(number: signal.Signals) -> None:
    ignoring = f"trap '' {number}; ulimit -c 0; exec \"$@\""
    command = ["sh", "-c", ignoring, "sh", sys.executable, "-c", STARTED, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{-number}\n", "")
