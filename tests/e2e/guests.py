"""The guests of the end-to-end tests, and the images that carry them."""

import os
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path

from tests.clang import CLANG
from tests.e2e.images import LINUX, WASI_WASM, Image, image, layer

SOURCE = Path(__file__).parent / "app.c"
#: For WasmEdge, with its sockets.
EDGE = Path(__file__).parent / "edge.c"
NN = Path(__file__).parent / "nn.c"
#: Programs that were compiled once: the root tree of Debian 13 (test_trixie.py) has no compiler.
CACHE = Path(__file__).parents[2] / ".cache/guests"
_NATIVE = ("gcc", "-static", "-O1", "-s")
_WASM = (*CLANG, "-O1")
_LIBRARY = ("gcc", "-shared", "-fPIC", "-O1", "-s")
NATIVE = "test.invalid/native:1"
WASM = "test.invalid/wasm:1"
WASI = "test.invalid/wasi:1"
#: Directories that the images offer as working directories and mount points.
DIRECTORIES = ("data", "tmp", "mnt", "proc", "dev", "sys", "etc", "run")


def build() -> tuple[bytes, bytes]:
    """app.c as (static Linux program, WASI command)."""
    return both(SOURCE)


def both(source: Path) -> tuple[bytes, bytes]:
    """The same of another source."""
    return _compiled(source, *_NATIVE), _compiled(source, *_WASM)


def edge() -> bytes:
    """edge.c as a module for WasmEdge."""
    return _compiled(EDGE, *_WASM)


def nn() -> bytes:
    """nn.c as a plugin of WasmEdge."""
    return _compiled(NN, *_LIBRARY)


def _compiled(source: Path, *command: str) -> bytes:
    key = sha256("\0".join(command).encode() + source.read_bytes()).hexdigest()[:16]
    program = CACHE / f"{source.stem}-{key}"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:  # whoever else compiles it sees all of it or nothing
            unfinished = Path(directory) / "program"
            subprocess.run([*command, "-o", unfinished, source], check=True, timeout=120)
            os.replace(unfinished, program)
    return program.read_bytes()


def standard(native: bytes, wasm: bytes) -> list[Image]:
    """The same file system with three faces: a native app, a Wasm app, a Wasm app for the platform wasi/wasm."""
    files = {"/app": native, "/app.wasm": wasm, "/data/note": b"a note\n"}
    contents = [layer(files, DIRECTORIES)]
    settings = {"Env": ["PATH=/", "FROM_IMAGE=yes"], "WorkingDir": "/"}
    images = []
    for name, entry, platform in ((NATIVE, "/app", LINUX), (WASM, "/app.wasm", LINUX), (WASI, "/app.wasm", WASI_WASM)):
        process = {**settings, "Entrypoint": [entry]}
        images.append(image(name, contents, process, platform))
        images.append(image(name.replace(":", "-user:"), contents, {**process, "User": "1234:5678"}, platform))
    return images
