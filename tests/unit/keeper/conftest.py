"""Of the keeper's tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shimd.keeper import program
from tests.unit.keeper.rig import Process


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Process]:
    if program() is None:
        pytest.skip("no C compiler was here")
    process = Process(tmp_path)
    yield process
    process.end()


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    """A pipe: the end that is kept is to be closed by the test."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    os.close(reading)
