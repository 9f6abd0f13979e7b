"""Which of the processes of ``make test`` runs what (pytest-xdist).

A test file goes to one of them as a whole, but for its tests with another containerd: what is made once for a file is
not made again in every process, and a containerd not started for every test.
"""

import re

import pytest
from xdist.scheduler import LoadScopeScheduling

_CONTAINERD = re.compile(r"\[(debian|v2)\b")


class ByFileAndContainerd(LoadScopeScheduling):
    """Hands them out in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        found = _CONTAINERD.search(test)
        return f"{file} {found[1]}" if found else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFileAndContainerd:
    return ByFileAndContainerd(config, log)
