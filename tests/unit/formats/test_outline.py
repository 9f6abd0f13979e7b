"""Outlines of programs: what is in them, read without their code, and no harm in any bytes."""

import os
import random
from collections.abc import Iterator

import pytest

from shimd.formats import outline
from tests.unit.engines.programs import binary, component, module, slow


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("program")
    yield fd
    os.close(fd)


def test_a_module(file: int) -> None:
    text = """(module (@custom "dylink.0" (before first) "") (import "env" "memory" (memory 1 2))
      (import "env" "table" (table 1 funcref)) (import "env" "g" (global (mut i32)))
      (import "env" "e" (tag)) (import "env" "f" (func (param i32))) (func (export "_start"))
      (@custom "producers" "x"))"""
    os.write(file, binary(text))
    found = outline.read(file)
    assert found is not None and not found.component
    assert [name for _module, name in found.imports] == ["memory", "table", "g", "e", "f"]
    assert found.exports == ["_start"]
    assert (found.first, found.sections) == ("dylink.0", ["dylink.0", "producers"])


def test_a_component(file: int) -> None:
    text = """(component (import "log" (func (param "a" u32))) (import "t" (type (sub resource)))
      (import "a:b/c@0.2.0" (instance (export "go" (func)))) (core module $m (func (export "run")))
      (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)) (export "m" (core module $m)))"""
    os.write(file, binary(text))
    found = outline.read(file)
    assert found is not None and found.component
    assert [name for name, _ in found.imports] == ["log", "t", "a:b/c@0.2.0"]
    assert found.exports == ["wasi:cli/run@0.2.0", "m"]


@pytest.mark.parametrize("data", [b"", b"\0asm", b"(module)", b"\0asm\x02\0\0\0", b"\x7fELF"])
def test_what_is_neither(file: int, data: bytes) -> None:
    os.write(file, data)
    assert outline.read(file) is None


def test_the_code_is_not_read(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read, pread = [0], os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        data = pread(fd, size, offset)
        read[0] += len(data)
        return data

    os.write(file, slow(1000))
    monkeypatch.setattr(os, "pread", counted)
    found = outline.read(file)
    assert found is not None and found.exports == ["_start"]
    assert read[0] < 1000


def test_any_bytes(file: int) -> None:
    """Cut short, changed, or claiming to be endless: what is left is read, and that is all."""
    chance = random.Random(1)
    seeds = [module(("env", "f"), custom="linking"), component("a:b/c@0.2.0", exports=("d:e/f@0.2.0",))]
    for _ in range(3000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(8, len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        os.ftruncate(file, 0)
        os.pwrite(file, data[: chance.randrange(8, len(data) + 1)], 0)
        found = outline.read(file)
        assert found is not None and len(found.imports) < 10


def test_more_than_any_toolchain_makes(file: int) -> None:
    os.write(file, b"\0asm\1\0\0\0" + b"\0\2\1x" * 200_000)
    found = outline.read(file)
    assert found is not None and len(found.sections) == 20_000
    assert not found.complete  # its exports may be behind them
    os.pwrite(file, b"\0asm\1\0\0\0" + b"\2\x80\x80\x80\x01" + b"\xff\xff\xff\x0f" + b"\0\0\0\0" * (1 << 20), 0)
    os.ftruncate(file, 1 << 30)  # an import section of 2 MiB, which says that it has 33 million
    found = outline.read(file)
    assert found is not None and len(found.imports) == 20_000
    assert not found.complete


@pytest.mark.parametrize("behind", [b"\7", b"\7\x05\0", b"\7\xff\xff\xff\xff\xff\x01", b"\0\2\1x" * 20_000])
def test_what_lies_behind_the_last_that_is_read(file: int, behind: bytes) -> None:
    """Without it nothing can be said of what the program does not have."""
    os.write(file, b"\0asm\1\0\0\0" + b"\0\2\1x")
    found = outline.read(file)
    assert found is not None and found.complete
    os.write(file, behind)
    found = outline.read(file)
    assert found is not None and not found.complete
