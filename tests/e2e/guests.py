"""The guests of the end-to-end tests, and the images that carry them."""

import subprocess
from pathlib import Path

from tests.e2e.images import LINUX, WASI_WASM, Image, image, layer

SOURCE = Path(__file__).parent / "app.c"
NATIVE = "test.invalid/native:1"
WASM = "test.invalid/wasm:1"
WASI = "test.invalid/wasi:1"
#: Directories that the images offer as working directories and mount points.
DIRECTORIES = ("data", "tmp", "mnt", "proc", "dev", "sys", "etc", "run")


def build(directory: Path) -> tuple[bytes, bytes]:
    """app.c as (static Linux program, WASI command)."""
    native, wasm = directory / "app", directory / "app.wasm"
    _run("gcc", "-static", "-O1", "-s", "-o", native, SOURCE)
    _run("clang", "--target=wasm32-wasi", "-O1", "-o", wasm, SOURCE)
    return native.read_bytes(), wasm.read_bytes()


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, timeout=120)


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
