"""shimd.linux.limits, in processes of their own."""

import json
import subprocess
import sys

from shimd.linux.limits import has_descriptors
from tests.unit.short import no_descriptors

_RAISED = """
import json, os, resource, subprocess, sys
from shimd.linux import limits
os.environ.pop("SHIMD_SOFT_NOFILE", None)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
limits.raise_descriptors()
raised = resource.getrlimit(resource.RLIMIT_NOFILE)
limits.raise_descriptors()  # as a daemon does that this one's keeper starts
limits.restore_descriptors()
print(json.dumps([raised, resource.getrlimit(resource.RLIMIT_NOFILE)]))
"""


def test_what_we_start_for_others_has_the_limit_that_we_were_given() -> None:
    done = subprocess.run([sys.executable, "-c", _RAISED], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[200, 200], [100, 200]]


def test_room_is_told_before_all_is_used() -> None:
    with no_descriptors(left=20):
        assert has_descriptors(10)
        assert not has_descriptors(30)
    with no_descriptors():
        assert not has_descriptors(0)
