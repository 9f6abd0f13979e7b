"""What is native and what is not, by the first bytes."""

import os
from collections.abc import Iterator

import pytest

from shimd.errors import InvalidArgument
from shimd.formats.magic import NativeProgram, reject_native


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("program")
    yield fd
    os.close(fd)


ELF, SCRIPT = "a native (ELF) program", "a script"


@pytest.mark.parametrize(("data", "kind"), [(b"\x7fELF\x02\x01", ELF), (b"#!/bin/sh\n", SCRIPT), (b"#!", SCRIPT)])
def test_native(file: int, data: bytes, kind: str) -> None:
    os.write(file, data)
    with pytest.raises(NativeProgram) as caught:
        reject_native("/app", file)
    assert str(caught.value).startswith(f"/app is {kind}, not WebAssembly")


@pytest.mark.parametrize("data", [b"\0asm\x01\0\0\0", b"(module)", b"", b"#", b"\x7fEL", b" #!"])
def test_not(file: int, data: bytes) -> None:
    os.write(file, data)
    reject_native("/app", file)


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"wasmer-universalWASMER\0\0", "machine code that wasmer has compiled"), (b"\0webc002", r"wasmer's \(\.webc\)")],
)
def test_others_that_nobody_runs(file: int, data: bytes, words: str) -> None:
    os.write(file, data)
    with pytest.raises(InvalidArgument, match=f"^/app is no program, but .*{words}") as caught:
        reject_native("/app", file)
    assert not isinstance(caught.value, NativeProgram)


def test_wherever_the_file_is_read(file: int) -> None:
    os.write(file, b"\x7fELF")
    os.lseek(file, 2, os.SEEK_SET)
    with pytest.raises(NativeProgram):
        reject_native("/app", file)
