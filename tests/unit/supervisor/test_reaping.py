"""Children that nobody has started here: a subreaper's."""

import os
import subprocess
import sys

from shimd.supervisor.workers.reaping import children_in_session
from tests.unit.short import no_descriptors

STRAYS = """
import anyio, os, sys
from shimd.linux import libc
from shimd.linux.pidfd import is_zombie
from shimd.linux.spawn import spawn, started
from shimd.supervisor.workers import reaping

async def main():
    reaping._EVERY = 0.02
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    script = f"(sleep 0.1; exit 5) & echo $! >&{writer}; exit 3"
    ours = spawn("/bin/sh", ["sh", "-c", script], {"PATH": os.environ["PATH"]}, [])
    stray = int(os.read(reader, 100))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reaping.bury_strays)
        with anyio.fail_after(20):
            while os.path.exists(f"/proc/{stray}"):
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert is_zombie(ours), "it is its starter's, however late that asks"
    assert os.waitpid(ours, 0)[1] == 3 << 8
    assert started == {ours}

anyio.run(main)
"""


def test_strays_are_buried_and_nobody_elses_children() -> None:
    done = subprocess.run([sys.executable, "-c", STRAYS], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_without_a_descriptor_nobody_is_found() -> None:
    with no_descriptors():
        assert children_in_session(os.getsid(0), ()) == []
