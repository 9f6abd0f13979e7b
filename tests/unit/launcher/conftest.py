"""Each test that takes ``launcher`` runs with both of the twins."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shimd.launcher.build import build
from tests.unit.launcher.launcher_rig import Launcher, install_standin


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``python/`` and ``c/``, each with the launchers and the daemon beside them."""
    root = tmp_path_factory.mktemp("launchers")
    for kind in ("python", "c"):
        build(root / kind, "1.2.3", kind)
        install_standin(root / kind)
    return root


@pytest.fixture(params=["python", "c"])
def launcher(request: pytest.FixtureRequest, installed: Path, tmp_path: Path) -> Iterator[Launcher]:
    bundle = tmp_path / "a bundle"
    bundle.mkdir()
    launcher = Launcher(installed / request.param / "containerd-shim-wasmer-v1", tmp_path / "run" / "shimd", bundle)
    yield launcher
    launcher.kill_daemons()
    shutil.rmtree(launcher.runtime, ignore_errors=True)
