"""Containerds that take turns: tests whose subject is no affair of theirs run on each runtime, but on one containerd.

A test of these modules is made for each containerd and runtime, and half of the combinations are left out, another
half for the next test: all pairs of a test's other parameters stay. ``SHIMD_TEST_EVERYWHERE=1`` leaves out none.
"""

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

#: Of what happens inside containers, of the daemon's own affairs, and of commands.
MODULES = {
    "bad_input", "cli", "daemon_death", "files", "hooks", "http", "http_js", "isolation", "links", "logs", "native",
    "rust", "spin", "spin_artifact", "spin_outbound", "spin_triggers", "upgrade", "walls",
}  # fmt: skip
_VERSION = "version"


def off_turn(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """What is left out."""
    if os.environ.get("SHIMD_TEST_EVERYWHERE"):
        return []
    tests: defaultdict[Path, Numbers] = defaultdict(Numbers)
    values: defaultdict[tuple[Path, str, str], Numbers] = defaultdict(Numbers)
    found: list[pytest.Item] = []
    for item in items:
        if item.path.stem.removeprefix("test_") not in MODULES or not isinstance(item, pytest.Function):
            continue
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if _VERSION in parameters:
            test = item.originalname
            numbers = [values[item.path, test, name].of(str(value)) for name, value in parameters.items()]
            if (tests[item.path].of(test) + sum(numbers)) % 2:
                found.append(item)
    return found


class Numbers:
    """Numbers for names, in the order in which they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))
