"""ELF files that are no programs, as compilers make them; and those that are, which are not mistaken for them."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shimd.errors import InvalidArgument
from shimd.formats import elf
from shimd.formats.magic import NativeProgram, reject_native
from tests.unit.inside import in_a_new_process

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")


def told(path: Path) -> str | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        return elf.no_program(fd)
    finally:
        os.close(fd)


def built(directory: Path, *flags: str) -> Path:
    (directory / "a.c").write_text("int main(void) { return 0; }\n")
    made = directory / "made"
    subprocess.run(["cc", *flags, "-o", made, directory / "a.c"], check=True)
    return made


def compiled(path: str, kind: str) -> None:
    import wasmtime
    from wasmtime import component

    engine = wasmtime.Engine()
    program = wasmtime.Module(engine, "(module)") if kind == "module" else component.Component(engine, "(component)")
    Path(path).write_bytes(program.serialize())


@pytest.mark.parametrize("kind", ["module", "component"])
def test_what_wasmtime_has_compiled(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "app.cwasm"
    in_a_new_process(compiled, str(path), kind)
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(
        InvalidArgument, match=r"^/app is no program, but machine code that wasmtime .* \(\.cwasm\)"
    ) as no:
        reject_native("/app", fd)
    os.close(fd)
    assert not isinstance(no.value, NativeProgram), "runc would try to run it"


@needs_cc
@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["-shared", "-fPIC"], "a shared object (.so)"),
        (["-c"], "an object file (.o)"),
        (["-pie", "-fPIE"], None),
        (["-no-pie"], None),
        (["-static"], None),
        (["-static-pie"], None),
    ],
    ids=str,
)
def test_what_a_compiler_makes(tmp_path: Path, flags: list[str], what: str | None) -> None:
    assert told(built(tmp_path, *flags)) == what


@needs_cc
def test_what_wasmedge_has_compiled(tmp_path: Path) -> None:
    """Known by a symbol."""
    (tmp_path / "a.c").write_text('__asm__(".globl wasm.code\\n.data\\nwasm.code: .byte 0\\n");\n')
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "a.so", tmp_path / "a.c"], check=True)
    assert (told(tmp_path / "a.so") or "").startswith("machine code that WasmEdge has compiled")


def test_programs_of_this_node() -> None:
    for path in (sys.executable, "/bin/sh", "/proc/self/exe"):
        assert told(Path(path)) is None


@needs_cc
def test_any_bytes(tmp_path: Path) -> None:
    chance = random.Random(1)
    whole = built(tmp_path, "-shared", "-fPIC").read_bytes()
    path = tmp_path / "any"
    for _ in range(1000):
        data = bytearray(whole[: chance.choice((*range(70), len(whole)))])
        for _ in range(chance.randrange(8) if data else 0):
            data[chance.randrange(min(len(data), 600))] = chance.choice((0, 0x7F, 0xFF, chance.randrange(256)))
        path.write_bytes(data)
        told(path)
