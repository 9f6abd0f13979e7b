"""What tests of containers from the inside share."""

from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system with a program; tests that need another have their own."""
    directory = tmp_path / "rootfs"
    directory.mkdir()
    (directory / "app.wasm").write_bytes(b"\0asm")
    return directory
