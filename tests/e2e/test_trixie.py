"""What this machine's Debian has no library for, in a root tree of Debian 13, with that one's Python and containerd.

pytest runs in there, in namespaces that end with it. The programs that it runs are compiled here before.
"""

import os
import re
import subprocess

import pytest

from shimd.engines.registry import lacking
from shimd.engines.wasmtime import NATIVE
from tests.components import build as components
from tests.e2e import guests, trixie
from tests.e2e.containerd import REPOSITORY
from tests.slight import build as slight

_PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
#: In there wasmtime is the package from PyPI. Where it is not, here, containers run it there.
_RUNTIMES = "(wasmedge or wasmtime)" if NATIVE else "wasmedge"
#: Arguments for pytest. What has no bearing on the engine is left to the machines that run all tests.
SUITES = {
    "contract": ("--shimd-engine=wasmedge",),
    "engine": ("tests/unit/engines/test_wasmedge.py", "-k", "not too_old"),
    "entries": ("tests/unit/engines/test_entries.py", "-k", "wasmedge"),
    "own": ("tests/e2e/test_wasmedge.py",),
    "run": ("tests/e2e/test_run.py", "-k", f"{_RUNTIMES} and debian and not hundred and not forty"),
    "files": ("tests/e2e/test_files.py", "-k", f"{_RUNTIMES} and v2"),
    "links": ("tests/e2e/test_links.py", "-k", f"{_RUNTIMES} and v2"),
    "walls": ("tests/e2e/test_walls.py", "-k", "wasmedge or without-python" if NATIVE else "wasmedge"),
    "docker": ("tests/e2e/docker/test_docker.py", "-k", "wasmedge"),
    # Not of the engine: what containerd 1.7 sees of a daemon's death.
    "deaths": ("tests/e2e/test_daemon_death.py", "-k", "debian and wasmtime and KILL and not part"),
    # Nor is this: what containerd 1.7 makes of the configurations that shimd install leaves.
    "node": ("tests/unit/node/test_rancher.py", "tests/unit/node/test_containerd.py", "-k", "not go_renders"),
}


@pytest.fixture(scope="module", autouse=True)
def tree(programs: tuple[bytes, bytes]) -> None:
    if lacking("wasmedge") is None:
        pytest.skip("this machine has libwasmedge: all of it runs here")
    if not trixie.is_there():
        pytest.skip("there is no root tree of Debian 13: run tools/setup")
    guests.edge()
    guests.nn()
    components.component("proxy", "proxy")
    slight.guest("app")


@pytest.mark.parametrize("suite", SUITES)
def test_in_the_tree(suite: str) -> None:
    enter = trixie.where("wasmedge")
    assert enter is not None
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--"]
    command = [*alone, *enter, str(trixie.PROGRAMS / "python"), *_PYTEST, *SUITES[suite]]
    every = {**os.environ, "SHIMD_TEST_EVERYWHERE": "1"}  # here nothing else takes its turn
    done = subprocess.run(command, cwd=REPOSITORY, env=every, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout) and "skipped" not in done.stdout, done.stdout
