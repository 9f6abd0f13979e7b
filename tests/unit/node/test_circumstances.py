"""The circumstances of a process that another takes the place of."""

import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

from shimd.node.circumstances import share

WORDS = (
    "import os, resource; print(os.getpriority(os.PRIO_PROCESS, 0), resource.getrlimit(resource.RLIMIT_CORE)[0], "
    "open('/proc/self/oom_score_adj').read().strip(), open('/proc/self/cgroup').read())"
)


def other() -> None:
    os.nice(3)
    resource.setrlimit(resource.RLIMIT_CORE, (4096, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    Path("/proc/self/oom_score_adj").write_text("700")


def test_they_are_shared() -> None:
    with subprocess.Popen(["/bin/sleep", "60"], preexec_fn=other) as process:
        try:
            before = partial(share, process.pid)
            said = subprocess.run([sys.executable, "-c", WORDS], preexec_fn=before, capture_output=True, text=True)
            nice = os.getpriority(os.PRIO_PROCESS, process.pid)
            cgroup = Path(f"/proc/{process.pid}/cgroup").read_text()
        finally:
            process.kill()
    assert said.stdout.split()[:3] == [str(nice), "4096", "700"]
    assert cgroup.split() == said.stdout.split()[3:]


def test_one_that_is_gone() -> None:
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    done = subprocess.run(["/bin/true"], preexec_fn=partial(share, process.pid))
    assert done.returncode == 0
