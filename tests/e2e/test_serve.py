"""``shimd serve`` without a containerd."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e import leftovers
from tests.e2e.containerd import LAUNCHERS, PATIENCE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_as_soon_as_it_is_known(tmp_path: Path, number: signal.Signals) -> None:
    """Its pid file goes with it."""
    variables = {f"SHIMD_{kind}_DIR": str(tmp_path / kind) for kind in ("RUNTIME", "STATE", "CACHE")}
    pid = tmp_path / "RUNTIME/shimd.pid"
    command = [str(LAUNCHERS / "shimd"), "serve"]
    with subprocess.Popen(command, env={**os.environ, **variables}, stderr=subprocess.DEVNULL) as process:
        while not pid.exists():
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0
    assert not pid.exists()
    assert not leftovers.processes_of(tmp_path)
