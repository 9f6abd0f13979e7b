"""How what is in C was built: :data:`shimd.launcher.build.HARDENED`."""

import shutil
import subprocess

import pytest

from shimd import zygote
from shimd.engines import contained

PROGRAM, LIBRARY = zygote.PROGRAM, contained.LIBRARY
pytestmark = [
    pytest.mark.skipif(not PROGRAM.exists() or not LIBRARY.exists(), reason="no C compiler was here"),
    pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf here"),
]


def said(option: str, file: object) -> str:
    return subprocess.run(["readelf", "-W", option, str(file)], check=True, capture_output=True, text=True).stdout


def test_the_zygote_is_at_random_addresses() -> None:
    assert "DYN (" in said("--file-header", PROGRAM)
    assert " PIE" in said("--dynamic", PROGRAM)


@pytest.mark.parametrize("file", [PROGRAM, LIBRARY], ids=["program", "library"])
def test_tables_are_read_only_and_stacks_are_looked_after(file: object) -> None:
    assert "BIND_NOW" in said("--dynamic", file)
    assert "GNU_RELRO" in said("--program-headers", file)
    assert "__stack_chk_fail" in said("--dyn-syms", file)
