"""Containerds that take turns, so that the suite ends in its time.

A test that is made for each containerd and each runtime, in these modules, runs on each of both, and in half of their
combinations: on one containerd for a runtime, on the other for the next. Of three parameters and more all pairs stay.
``SHIMD_TEST_EVERYWHERE=1`` leaves out none; so do the modules whose subject is what containerd sees and asks for.
"""

import os
from collections import defaultdict
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import pytest

#: Of what happens inside containers, of deaths and upgrades of shimd's parts, and of commands.
MODULES = {
    "bad_input", "cli", "daemon_death", "files", "hooks", "http", "http_js", "isolation", "links", "logs", "native",
    "restart", "rust", "sockets", "spin", "spin_artifact", "spin_outbound", "spin_triggers", "upgrade", "walls",
}  # fmt: skip
_VERSION = "version"


def off_turn(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """What is left out."""
    if os.environ.get("SHIMD_TEST_EVERYWHERE"):
        return []
    tests: defaultdict[Path, dict[str, int]] = defaultdict(_numbers)
    values: defaultdict[tuple[Path, str, str], dict[str, int]] = defaultdict(_numbers)
    found: list[pytest.Item] = []
    for item in items:
        if item.path.stem.removeprefix("test_") not in MODULES or not isinstance(item, pytest.Function):
            continue
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if _VERSION in parameters:
            test = item.originalname
            numbers = [values[item.path, test, name][str(value)] for name, value in parameters.items()]
            if (tests[item.path][test] + sum(numbers)) % 2:
                found.append(item)
    return found


def _numbers() -> dict[str, int]:
    """A number for each name that is asked for, in the order in which they come."""
    return defaultdict(count().__next__)
