"""What systemd itself has to say of the units."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.systemd.units import SERVICE, SOCKET, UNITS


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
