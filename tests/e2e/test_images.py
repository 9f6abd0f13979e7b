"""Every form in which a Wasm app comes: named by a path, by a function, as text, for a platform, as a bare layer."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from grpclib.client import Channel

from shimd.api.containerd.services.containers.v1 import Container, ContainersStub, UpdateContainerRequest
from shimd.api.google.protobuf import FieldMask
from tests import wasmer
from tests.e2e import guests, images
from tests.e2e.box import Box, wasm_only
from tests.e2e.containerd import version_of

pytestmark = wasm_only

#: Writes "start" by _start and "greet" by greet; ``fail`` returns a number, which no entry may.
GREETER = """\
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\10\\00\\00\\00\\06\\00\\00\\00\\18\\00\\00\\00\\06\\00\\00\\00start\\0a\\00\\00greet\\0a")
  (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64))))
  (func (export "greet") (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 64))))
  (func (export "takes") (param i32)))
"""
NAME = "test.invalid/made:1"


def load(box: Box, tmp_path: Path, *made: images.Image, unpack: bool = True) -> None:
    images.save(tmp_path / "made.tar", made)
    flags = [*box.containerd.version.import_flags, *([] if unpack else ["--no-unpack"])]
    box.ctr("images", "import", *flags, tmp_path / "made.tar")


def with_files(box: Box, tmp_path: Path, files: Mapping[str, bytes], **process: Any) -> None:
    contents = images.layer(files, guests.DIRECTORIES)
    load(box, tmp_path, images.image(NAME, [contents], {"Env": ["PATH=/bin:/"], **process}))


def run(box: Box, *command: str, image: str = NAME) -> tuple[int, str]:
    done = box.ctr("run", "--rm", "--runtime", box.runtime.type, image, "app", *command, check=False)
    return done.code, done.out or done.err


def test_text_format(box: Box, tmp_path: Path) -> None:
    with_files(box, tmp_path, {"/greeter.wat": GREETER.encode()}, Entrypoint=["/greeter.wat"])
    assert run(box) == (0, "start\n")


def test_function(box: Box, tmp_path: Path) -> None:
    with_files(box, tmp_path, {"/greeter.wat": GREETER.encode()})
    code, said = run(box, "/greeter.wat#greet")
    if box.runtime.name == "wasmer" and not wasmer.NATIVE:  # the binding from PyPI calls nothing but _start
        assert code != 0 and "use the wasmtime engine" in said
    else:
        assert (code, said) == (0, "greet\n")


@pytest.mark.parametrize("function", ["missing", "takes", "memory"])
def test_what_is_no_function_to_call(box: Box, tmp_path: Path, function: str) -> None:
    with_files(box, tmp_path, {"/greeter.wat": GREETER.encode()})
    code, said = run(box, f"/greeter.wat#{function}")
    assert code != 0
    assert function in said
    assert "app" in said


def test_command_instead_of_entrypoint(box: Box, tmp_path: Path) -> None:
    with_files(box, tmp_path, {"/greeter.wat": GREETER.encode()}, Cmd=["/greeter.wat"])
    assert run(box) == (0, "start\n")


def test_searched_in_path(box: Box, tmp_path: Path) -> None:
    with_files(box, tmp_path, {"/bin/greeter.wat": GREETER.encode()})
    assert run(box, "greeter.wat") == (0, "start\n")


def test_relative_to_the_working_directory(box: Box, tmp_path: Path) -> None:
    with_files(box, tmp_path, {"/data/greeter.wat": GREETER.encode()}, WorkingDir="/data")
    assert run(box, "./greeter.wat") == (0, "start\n")


def test_any_name(box: Box, tmp_path: Path, programs: tuple[bytes, bytes]) -> None:
    """The magic number tells a module, not the suffix."""
    with_files(box, tmp_path, {"/app": programs[1]})
    assert run(box, "/app") == (0, "hello from app\n")


def test_through_a_symlink(box: Box, tmp_path: Path) -> None:
    """Absolute links lead to the container's own files."""
    files, links = {"/greeter.wat": GREETER.encode()}, {"/link.wat": "/greeter.wat"}
    load(box, tmp_path, images.image(NAME, [images.layer(files, guests.DIRECTORIES, links)], {"Env": ["PATH=/"]}))
    assert run(box, "/link.wat") == (0, "start\n")


@pytest.mark.parametrize("platform", [(), ("--platform", "wasi/wasm")], ids=["default", "named"])
def test_platform_wasi(box: Box, platform: Sequence[str]) -> None:
    done = box.run("app", flags=("--rm", *platform), image=guests.WASI)
    assert (done.code, done.out) == (0, "hello from app\n")


@pytest.mark.parametrize("kind", ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm"])
def test_bare_layer(box: Box, tmp_path: Path, programs: tuple[bytes, bytes], kind: str) -> None:
    """An ordinary image for wasi/wasm whose one layer is the module; containerd 1.6 cannot unpack such."""
    if version_of(box.containerd) < (1, 7):
        pytest.skip("containerd 1.6 refuses to unpack the image")
    load(box, tmp_path, images.bare(NAME, programs[1], kind, {"Entrypoint": ["/app.wasm"]}))
    assert run(box) == (0, "hello from app\n")
    assert run(box, "/app.wasm", "exit", "5") == (5, "")


@pytest.mark.parametrize("kind", ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm"])
def test_artifact(box: Box, tmp_path: Path, programs: tuple[bytes, bytes], kind: str) -> None:
    """An OCI Wasm artifact. ctr makes no container of one (its configuration is no OCI image's), other clients do."""
    load(box, tmp_path, images.artifact(NAME, programs[1], kind), unpack=False)
    create_without_files(box, tmp_path, "/app.wasm", "echo", "from the layer")
    anyio.run(set_image, box, "app", NAME)
    done = box.ctr("tasks", "start", "app")
    assert done.out == "from the layer\n"


def test_artifact_with_another_title(box: Box, tmp_path: Path, programs: tuple[bytes, bytes]) -> None:
    """The name is what the pod says; the layer's own matters only among several."""
    load(box, tmp_path, images.artifact(NAME, programs[1], "application/wasm", "other.wasm"), unpack=False)
    create_without_files(box, tmp_path, "/app.wasm")
    anyio.run(set_image, box, "app", NAME)
    assert box.ctr("tasks", "start", "app").out == "hello from app\n"


def create_without_files(box: Box, tmp_path: Path, *command: str, flags: Sequence[str] = ()) -> None:
    root = tmp_path / "root"
    for name in guests.DIRECTORIES:
        (root / name).mkdir(parents=True)
    box.ctr("containers", "create", "--runtime", box.runtime.type, *flags, "--rootfs", root, "app", *command)


async def set_image(box: Box, container: str, image: str) -> None:
    channel = Channel(path=str(box.containerd.address))
    try:
        stub = ContainersStub(channel, metadata={"containerd-namespace": box.namespace})
        mask = FieldMask(paths=["image"])
        await stub.update(UpdateContainerRequest(container=Container(id=container, image=image), update_mask=mask))
    finally:
        channel.close()


def test_a_compiled_module_that_does_not_load_is_compiled_again(own_box: Box) -> None:
    assert own_box.run("first", "exit", 3).code == 3
    entries = [path for path in cache_files(own_box) if path.name in ("module", "module.wasm", "native")]
    assert entries
    for path in entries:
        os.truncate(path, 100)
    assert own_box.run("second", "exit", 3).code == 3
    assert all(path.stat().st_size > 100 for path in entries)


def cache_files(box: Box) -> list[Path]:
    return [path for path in (box.containerd.directory / "shimd-cache").rglob("*") if path.is_file()]
