"""Guests are what they are with and without binaryen on the machine."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clang import CLANG

SOURCE = """#include <stdio.h>
__attribute__((noinline)) static int known_by_name(int n) { return puts("hello") + n; }
int main(int argc, char **argv) { return known_by_name(argc); }
"""


@pytest.mark.skipif(shutil.which("clang") is None, reason="no clang")
def test_wasm_opt_is_not_run(tmp_path: Path) -> None:
    other = tmp_path / "bin/wasm-opt"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    (tmp_path / "a.c").write_text(SOURCE)
    environment = {**os.environ, "PATH": f"{other.parent}:{os.environ['PATH']}"}
    subprocess.run([*CLANG, "-O1", "-o", "a.wasm", "a.c"], cwd=tmp_path, env=environment, check=True, timeout=60)
    assert b"known_by_name" in (tmp_path / "a.wasm").read_bytes()
