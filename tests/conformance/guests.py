"""Modules from C sources, by Debian's clang and wasi-libc; what did not change is not compiled again."""

import os
import subprocess
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path

from tests.clang import CLANG
from tests.conformance.suite import GUESTS

CACHE = Path(__file__).parents[2] / ".cache" / "conformance"
COMMAND = (*CLANG, "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-Wl,--strip-debug")


def compiled(source: Path, define: str | None = None) -> Path:
    """The module of a source, compiled with a macro.

    :raises subprocess.CalledProcessError: it does not compile
    """
    command = [*COMMAND, *([f"-D{define}"] if define else [])]
    key = sha256(_common() + "\0".join(command).encode() + source.read_bytes())
    module = CACHE / f"{source.stem}-{key.hexdigest()[:16]}.wasm"
    if not module.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:  # whoever else compiles it sees all of it or nothing
            unfinished = Path(directory) / "module"
            subprocess.run([*command, "-o", unfinished, source], check=True, timeout=120)
            os.replace(unfinished, module)
    return module


@cache
def toolchain() -> str:
    """The compiler and the C library, with their versions."""
    clang = subprocess.run(["clang", "--version"], check=True, capture_output=True, text=True, timeout=20).stdout
    query = ["dpkg-query", "--show", "--showformat=${Version}", "wasi-libc"]
    libc = subprocess.run(query, check=True, capture_output=True, text=True, timeout=20).stdout
    return f"{clang.splitlines()[0]}, wasi-libc {libc}"


@cache
def _common() -> bytes:
    """What every module depends on."""
    headers = b"".join(path.read_bytes() for path in sorted(GUESTS.glob("*.h")))
    return toolchain().encode() + headers
