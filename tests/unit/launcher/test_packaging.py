"""The wheel and the editable install: what lands in the scripts directory, and that it runs from there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shimd.launcher.build import ENGINES, default_kind, interpreter_line
from shimd.launcher.names import shim_names
from tests.unit.launcher.launcher_rig import Launcher, install_standin

PROJECT = Path(__file__).resolve().parents[3]
LAUNCHERS = [name for engine in ENGINES for name in shim_names(engine)]
KINDS = ["python", pytest.param("c", marks=pytest.mark.skipif(default_kind() != "c", reason="no C compiler"))]


def run(*command: object, kind: str, cwd: Path | None = None) -> None:
    environment = {**os.environ, "SHIMD_LAUNCHER": kind, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def install(wheels: Path, venv: Path, kind: str) -> Path:
    (wheel,) = wheels.iterdir()
    assert wheel.name.endswith("-none-any.whl") == (kind == "python")
    run("-m", "pip", "--python", venv / "bin/python", "install", "--no-deps", "--no-index", wheel, kind=kind)
    return wheel


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project: a build writes into its source."""
    copy = tmp_path_factory.mktemp("source") / "shimd"
    shutil.copytree(PROJECT / "shimd", copy / "shimd", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("systemd", "proto"):
        shutil.copytree(PROJECT / name, copy / name)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, copy)
    return copy


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    return tmp_path / "venv"


@pytest.fixture
def launcher(venv: Path, tmp_path: Path) -> Iterator[Launcher]:
    launcher = Launcher(venv / "bin" / LAUNCHERS[0], tmp_path / "run", tmp_path)
    yield launcher
    launcher.kill_daemons()


def check(venv: Path, launcher: Launcher, kind: str) -> None:
    scripts = venv / "bin"
    assert {"shimd", "shimd-launcher", *LAUNCHERS} <= set(os.listdir(scripts))
    is_binary = [(scripts / name).read_bytes().startswith(b"\x7fELF") for name in LAUNCHERS]
    assert is_binary == [kind == "c"] * len(LAUNCHERS)
    first_line, _, _ = (scripts / "shimd-launcher").read_text().partition("\n")
    assert first_line.startswith("#!/") and first_line.endswith(" -IS")
    for name in LAUNCHERS:
        launcher.program = scripts / name
        assert b"0.1" in launcher.call("-v").stdout
    install_standin(scripts)  # the way from either to shimd is the same whatever shimd is
    assert launcher.start().stdout == f"unix:///run/shimd/s/{ENGINES[-1]}.sock".encode()


@pytest.mark.parametrize("kind", KINDS)
def test_wheel(source: Path, venv: Path, launcher: Launcher, kind: str, tmp_path: Path) -> None:
    run("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path / "wheels", source, kind=kind)
    install(tmp_path / "wheels", venv, kind)
    check(venv, launcher, kind)
    assert (venv / "lib/systemd/system/shimd.service").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_editable(source: Path, venv: Path, launcher: Launcher, kind: str, tmp_path: Path) -> None:
    """What ``pip install -e`` does: the build backend's hook (PEP 660), then the wheel that it makes."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    run("-c", f"from setuptools import build_meta; build_meta.build_editable({str(wheels)!r})", kind=kind, cwd=source)
    install(wheels, venv, kind)
    check(venv, launcher, kind)


def test_flags_of_the_python_launcher_are_in_force(installed: Path, tmp_path: Path) -> None:
    """-I: nothing of the user's is imported. -S: nor is site."""
    traced = tmp_path / "traced"
    first_line, _, source = (installed / "python" / LAUNCHERS[0]).read_text().partition("\n")
    traced.write_text(
        f"{first_line}\nimport sys; print(sys.flags.isolated, sys.flags.no_site, 'site' in sys.modules)\n"
    )
    traced.chmod(0o755)
    assert subprocess.run([traced], capture_output=True, check=True).stdout == b"1 1 False\n"
    assert source.startswith('"""')


@pytest.mark.parametrize("place", ["plain", "with a space", "l" * 150])
def test_a_script_finds_its_interpreter(tmp_path: Path, place: str) -> None:
    python = tmp_path / place / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    script = tmp_path / "script"
    program = "import sys\nprint(sys.flags.isolated, sys.flags.no_site, *sys.argv[1:])\n"
    script.write_text(interpreter_line(str(python)) + program)
    script.chmod(0o755)
    done = subprocess.run([script, "a b", "c"], capture_output=True, text=True, check=True)
    assert done.stdout == "1 1 a b c\n"
