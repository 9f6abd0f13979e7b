"""The benchmarks run: nothing is said of how fast anything is."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from tests.e2e.containerd import REPOSITORY


def test_apps() -> None:
    command = [sys.executable, "-m", "benchmarks.apps", "--apps", "1", "--only", "wasmtime,slight"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines()[2:]]
    assert [row[0].strip() for row in rows] == ["wasmtime", "slight"]
    assert all(float(cell) > 0 for row in rows for cell in row[1:])


def test_quick_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "wasmtime,runc", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    for name in ("wasmtime", "runc"):
        assert all(rate > 0 for rate in found["tasks_per_second"][name].values())
        assert all(size > 0 for size in found["pss_mib_per_app"][name].values())
        assert len(found["ctr_run_ms"][name]) == 2
    assert "| wasmtime |" in (tmp_path / "README.md").read_text()
    assert ElementTree.parse(tmp_path / "results.svg").getroot().tag.endswith("svg")
