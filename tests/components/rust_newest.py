"""A component from Rust for a compiler that no Debian has with a standard library for WASI: that of Debian's browsers,
which it has with its source, builds that library, too. Nothing of it is installed.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

from tests.components.build import CACHE, kept, run

SOURCE = Path(__file__).parent / "spin7"
_TARGET = "wasm32-wasip1"
#: Debian's: the compiler, what it is linked with, and its source. What else it takes is of the same versions.
_PACKAGES = ("rustc-web", "libstd-rust-web-dev", "rust-web-src")
#: The oldest that will do (spin-sdk 7).
_VERSION = (1, 94)
#: Debian's wasi-libc.
_LIBC = "/usr/lib/wasm32-wasi"


@cache
def module() -> Path:
    """The core module of ``tests/components/spin7``: half a gigabyte is fetched for it, and not kept.

    Skips the test if there is no cargo, or no such compiler.
    """
    key = hashlib.sha256()
    for name in ("Cargo.toml", "Cargo.lock", "src/lib.rs"):
        key.update((SOURCE / name).read_bytes())

    def build(made: Path) -> None:
        _check()
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            _build(Path(directory)).rename(made)

    return kept("spin7", key.digest(), build)


def _check() -> None:
    if shutil.which("cargo") is None:
        pytest.skip("there is no cargo")
    shown = subprocess.run(["apt-cache", "show", "--no-all-versions", "rustc-web"], capture_output=True, text=True)
    version = re.search(r"^Version: (\d+)\.(\d+)", shown.stdout, re.MULTILINE)
    if version is None or (int(version[1]), int(version[2])) < _VERSION:
        pytest.skip("apt has no rustc-web that is new enough")


def _build(work: Path) -> Path:
    tree = work / "tree"
    _unpack(work, tree, *_PACKAGES)
    standard = re.findall(r"libstd-rust-web-[\d.]+", _depends(work, "libstd-rust-web-dev"))
    _unpack(work, tree, *standard)
    (llvm,) = re.findall(r"libllvm(\d+)", _depends(work, standard[0]))
    _unpack(work, tree, f"libllvm{llvm}", f"lld-{llvm}")
    shutil.copytree(SOURCE, work / "source")
    name = _TARGET.upper().replace("-", "_")
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{tree}/usr/lib/x86_64-linux-gnu:{tree}/usr/lib/llvm-{llvm}/lib",
        "RUSTC": f"{tree}/usr/bin/rustc",
        "RUSTC_BOOTSTRAP": "1",  # a standard library of one's own
        "CARGO_TARGET_DIR": str(work / "target"),
        f"CARGO_TARGET_{name}_LINKER": f"{tree}/usr/lib/llvm-{llvm}/bin/wasm-ld",
        f"CARGO_TARGET_{name}_RUSTFLAGS": f"-L native={_LIBC} -C linker-flavor=wasm-ld",
    }
    words = ["--quiet", "--locked", "--release", "-Zbuild-std=std,panic_abort", "--target", _TARGET]
    run(["cargo", "build", *words], work / "source", environment, limit=1200)
    return work / f"target/{_TARGET}/release/spin7.wasm"


def _unpack(work: Path, tree: Path, *packages: str) -> None:
    for package in packages:
        run(["apt-get", "download", "-q", package], work)
        run(["dpkg", "-x", str(_archive(work, package)), str(tree)], work)


def _archive(work: Path, package: str) -> Path:
    return next(work.glob(f"{package}_*.deb"))


def _depends(work: Path, package: str) -> str:
    return run(["dpkg-deb", "-f", str(_archive(work, package)), "Depends"], work)
