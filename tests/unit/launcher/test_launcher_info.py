"""``-info``, ``-v``, the program's name, and what the two twins and older interpreters have in common."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shimd import oci
from shimd.api.containerd.types import RuntimeInfo
from shimd.launcher import build
from tests.unit.launcher.launcher_rig import Launcher


def test_info(launcher: Launcher) -> None:
    done = launcher.call("-info")
    assert (done.returncode, done.stderr) == (0, b"")
    info = RuntimeInfo.parse(done.stdout)
    assert bytes(info) == done.stdout
    assert info.name == "io.containerd.wasmer.v1"
    assert info.version is not None and info.version.version == "1.2.3"
    assert info.features is not None
    assert info.features.type_url == "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
    features = json.loads(info.features.value)
    assert features["linux"]["mountExtensions"]["idmap"] == {"enabled": False}
    assert features["ociVersionMax"] == oci.VERSION
    assert sorted(features["hooks"]) == sorted(oci.Hooks.__annotations__)
    assert launcher.daemons() == []


@pytest.mark.parametrize("flag", ["-v", "--version", "-version"])
def test_version(launcher: Launcher, flag: str) -> None:
    done = launcher.call(flag)
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.fullmatch(rb"containerd-shim-wasmer-v1:\n  Version:  1\.2\.3\n  Launcher: (C|Python)\n", done.stdout)


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("containerd-shim-spin-v2", b"io.containerd.spin.v2"),
        ("containerd-shim-a-vm-v10", b"io.containerd.a-vm.v10"),
        ("containerd-shim-wasmer", None),
        ("containerd-shim--v1", None),
        ("containerd-shim-wasmer-vX", None),
        ("containerd-shim-wasmer-v", None),
        ("shim", None),
    ],
)
def test_engine_is_named_by_the_program(launcher: Launcher, tmp_path: Path, name: str, runtime: bytes | None) -> None:
    (tmp_path / name).symlink_to(launcher.program)
    launcher.program = tmp_path / name
    done = launcher.call("-info")
    if runtime:
        assert runtime in done.stdout
    else:
        sentence = f"{name}: the program must be called containerd-shim-ENGINE-vN"
        assert (done.returncode, done.stderr.decode()) == (1, sentence)


def test_twins_say_the_same(installed: Path) -> None:
    answers = [
        subprocess.run([installed / kind / "containerd-shim-wasmtime-v1", "-info"], capture_output=True, check=True)
        for kind in ("python", "c")
    ]
    assert answers[0].stdout == answers[1].stdout


WORDS = [
    *("-namespace", "--namespace", "-namespace=n", "-namespace=", "-id", "-id=x", "--id=y", "-bundle", "-bundle=/none"),
    *("-debug", "-debug=true", "-debug=false", "--debug=0", "-v", "-version=false", "-info", "--info=true", "-v="),
    *("--", "-", "---x", "-=", "", "start", "delete", "x", "-what", "-address", "-socket=", "-publish-binary"),
]


@pytest.mark.parametrize("seed", range(40))
def test_twins_understand_the_same(installed: Path, tmp_path: Path, seed: int) -> None:
    """Any arguments: the same output, but for the time, and for each twin's own name and place."""
    dice = random.Random(seed)
    arguments = [dice.choice(WORDS) for _ in range(dice.randint(1, 6))]
    empty = tmp_path / "empty"
    empty.mkdir()
    outcomes = []
    for kind in ("python", "c"):
        program = tmp_path / kind / "containerd-shim-wasmer-v1"
        program.parent.mkdir()
        shutil.copy(installed / kind / program.name, program)
        shutil.copy(installed / kind / "shimd-launcher", program.parent)  # but no daemon
        done = Launcher(program, tmp_path / "run", empty).call(*arguments)
        stdout = b"deleted" if done.stdout.startswith(b"\x10\x89\x01\x1a") else done.stdout.replace(b"Python", b"C")
        outcomes.append((done.returncode, stdout, done.stderr.replace(b"/python/", b"/c/")))
    assert outcomes[0] == outcomes[1]


def interpreters() -> list[str]:
    """Every Python 3 of this machine that its owner has put in reach."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {str(path) for path in root.glob("3.*/bin/python3")} if root.is_dir() else set()
    found |= {path for minor in range(6, 16) if (path := shutil.which(f"python3.{minor}")) and "shims" not in path}
    return sorted(found | {sys.executable})


@pytest.mark.parametrize("interpreter", interpreters())
def test_old_interpreters(interpreter: str, installed: Path, tmp_path: Path) -> None:
    """The node's may be older than shimd's own: the whole way, a start of the daemon and a clean-up."""
    version = subprocess.run([interpreter, "-c", "import sys; print(sys.version_info >= (3, 6))"], capture_output=True)
    if version.stdout != b"True\n":
        pytest.skip("not a working Python 3.6 or later")
    directory = tmp_path / "bin"
    shutil.copytree(installed / "python", directory)
    program = directory / "containerd-shim-wasmer-v1"
    _, _, source = program.read_text().partition("\n")
    program.write_text(f"#!{interpreter} -IS\n{source}")
    launcher = Launcher(program, tmp_path / "run", tmp_path)
    try:
        assert launcher.start().stdout == b"unix:///run/shimd/s/wasmer.sock"
    finally:
        launcher.kill_daemons()
    (tmp_path / "shimd.task").write_text("4194305 1\n")
    assert launcher.delete().returncode == 0
    assert not (tmp_path / "shimd.task").exists()


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_compiles_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler} here")
    monkeypatch.setenv("CC", compiler)
    build.compile_c(tmp_path / "containerd-shim-x-v1", "1", ["-Werror", "-Wpedantic", "-Wshadow", "-Wconversion"])


def test_c_source_stays_short() -> None:
    assert len((Path(build.__file__).with_name("launcher.c")).read_text().splitlines()) <= 200
