"""What systemd itself has to say of the units."""

import shutil
import subprocess
from pathlib import Path

import pytest

from shimd.errors import FailedPrecondition
from shimd.node.install import Node, install
from tests.e2e.containerd import LAUNCHERS
from tests.e2e.systemd.units import SERVICE, SOCKET, UNITS


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
@pytest.mark.parametrize("name", ["plain", "with a space", "100%n", "ümlaut"])
def test_the_unit_finds_the_program_wherever_it_is(tmp_path: Path, name: str) -> None:
    """systemd-analyze says if there is none that it could execute."""
    changes = install(node(tmp_path, name)).changes
    units = {change.path.name: change.text or "" for change in changes if change.path.name in (SERVICE, SOCKET)}
    for unit, text in units.items():
        (tmp_path / unit).write_text(text)
    command = ["systemd-analyze", "verify", *(str(tmp_path / unit) for unit in units)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), units[SERVICE]


@pytest.mark.parametrize("name", ['quo"ted', "back\\slash", "new\nline"])
def test_where_systemd_would_execute_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(FailedPrecondition, match=r"(?s)^systemd executes no .*/shimd: it takes no quotes"):
        install(node(tmp_path, name))


def node(directory: Path, name: str) -> Node:
    """One with systemd, on which shimd is installed in a directory of that name."""
    (programs := directory / name).mkdir()
    for program in LAUNCHERS.glob("*shim*"):
        (programs / program.name).symlink_to(program)
    (directory / "root/etc/systemd").mkdir(parents=True)
    return Node(directory / "root", runtimes=["wasmtime"], programs=programs)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_verify(tmp_path: Path) -> None:
    """It only warns of an unknown key, so: not a word."""
    shutil.copytree(UNITS, tmp_path, dirs_exist_ok=True)
    drop_in = tmp_path / "shimd.service.d" / "test.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(f"[Service]\nExecStart=\nExecStart={shutil.which('true')} serve\n")  # it must exist
    units = [tmp_path / name for name in (SERVICE, SOCKET)]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
