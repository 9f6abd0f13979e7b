"""The guard itself: it would see what it is there for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import audit

_SEALED = "from shimd.seal import seal; seal('the test'); "


def _run(record: Path, program: str) -> list[str]:
    audit.prepare(record)
    env = {**os.environ, audit.NAME: str(record)}
    subprocess.run([sys.executable, "-I", "-c", program], env=env, capture_output=True, check=False)
    return audit.noted(record)


@pytest.mark.parametrize(
    ("late", "event"),
    [
        ("import colorsys", "import colorsys"),
        ("open(shimd.__file__)", f"open {audit.__file__.removesuffix('tests/e2e/audit.py')}shimd/__init__.py"),
        ("os.listdir(os.path.dirname(os.__file__))", "os.listdir /"),
        ("os.fork() or os.chroot('/proc') or __import__('colorsys')", "import colorsys"),
    ],
)
def test_what_is_done_too_late_is_noted(tmp_path: Path, late: str, event: str) -> None:
    found = _run(tmp_path / "record", f"import os, shimd; {_SEALED}{late}")
    assert any("after the test, pid" in line and event in line for line in found), found


def test_what_was_done_before_is_not(tmp_path: Path) -> None:
    assert (
        _run(tmp_path / "record", f"import colorsys; open(colorsys.__file__).close(); {_SEALED}import colorsys") == []
    )
