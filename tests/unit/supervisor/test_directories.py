"""The daemon starts only where its directories are its user's alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from shimd import paths
from shimd.errors import FailedPrecondition
from shimd.supervisor.serve import _make_directories

NAMES = ("SHIMD_RUNTIME_DIR", "SHIMD_STATE_DIR", "SHIMD_CACHE_DIR")


@pytest.fixture
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    made = {name: tmp_path / name.split("_")[1] for name in NAMES}  # short enough for sockets in it
    for name, path in made.items():
        monkeypatch.setenv(name, str(path))
    return made


def test_they_are_made(directories: dict[str, Path]) -> None:
    _make_directories()
    assert list(paths.directories()) == list(directories.values())
    assert [path.stat().st_mode & 0o777 for path in directories.values()] == [0o700] * 3


@pytest.mark.parametrize("name", NAMES)
def test_one_is_not_ours_alone(directories: dict[str, Path], name: str) -> None:
    directories[name].mkdir()
    directories[name].chmod(0o777)
    with pytest.raises(FailedPrecondition, match=f"^{directories[name]} is not .*'s alone: others may write to it"):
        _make_directories()


def test_the_daemon_says_so_and_ends(directories: dict[str, Path]) -> None:
    directories["SHIMD_CACHE_DIR"].mkdir()
    directories["SHIMD_CACHE_DIR"].chmod(0o775)
    command = [sys.executable, "-I", "-m", "shimd.supervisor.serve"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{directories['SHIMD_CACHE_DIR']} is not " in done.stderr
    assert len(done.stderr.splitlines()) == 1
