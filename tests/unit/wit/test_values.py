"""Values in a guest's memory and on its stack: against known bytes, a C compiler, and each other."""

import struct
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shimd.apps.slight.world import interface
from shimd.component.results import Case, Err, Ok
from shimd.engines.slight_names import NAMES
from shimd.wit.compound import UNIT, Enum, Expected, Option, Record, Tuple, Variant
from shimd.wit.memory import Fault, Handles
from shimd.wit.resolve import PRIMITIVE, functions
from shimd.wit.types import Bytes, Handle, ListOf, Type
from tests.clang import CLANG
from tests.slight.bindings import PRELUDE, Bindings

STRING, U8, S32, F64 = (PRIMITIVE[name] for name in ("string", "u8", "s32", "float64"))


class Memory:
    """64 KiB, given away from 256 on."""

    def __init__(self) -> None:
        self.data = bytearray(1 << 16)
        self.handles = Handles()
        self._free = 256

    def read(self, address: int, size: int) -> bytes:
        if address + size > len(self.data):
            raise Fault("beyond")
        return bytes(self.data[address : address + size])

    def write(self, address: int, data: bytes) -> None:
        if address + len(data) > len(self.data):
            raise Fault("beyond")
        self.data[address : address + len(data)] = data

    def allocate(self, size: int, align: int) -> int:
        self._free = -(-self._free // align) * align + size
        return self._free - size


def stored(kind: Type, value: Any) -> tuple[Memory, bytes]:
    memory = Memory()
    kind.store(memory, 0, value)
    return memory, memory.read(0, kind.size)


ERROR = Variant({"missing": STRING, "number": U8, "nothing": UNIT})


def test_an_expected_value() -> None:
    """wit-bindgen's C reads a tag at 0, then at 4 what it is: a handle, or an error with its own tag, text at 8."""
    kind = Expected(Handle("thing"), ERROR)
    assert (kind.size, kind.align, kind.flat) == (16, 4, ("i32", "i32", "i32", "i32"))
    memory, data = stored(kind, Ok("a thing"))
    assert data[:1] + data[4:8] == b"\0" + struct.pack("<I", 0)
    assert memory.handles.get("thing", 0) == "a thing"
    memory, data = stored(kind, Err(Case("missing", "key")))
    assert (data[0], data[4]) == (1, 0)
    address, length = struct.unpack("<II", data[8:16])
    assert memory.read(address, length) == b"key"


def test_a_response() -> None:
    fields = {"status": PRIMITIVE["u16"], "headers": Option(ListOf(Tuple([STRING, STRING]))), "body": Option(Bytes())}
    kind = Record(fields)
    assert (kind.size, kind.align) == (28, 4)
    _memory, data = stored(kind, {"status": 404, "headers": None, "body": b"no"})
    assert struct.unpack("<H", data[:2]) == (404,)
    assert (data[4], data[16]) == (0, 1)


def test_wide_cases_are_aligned() -> None:
    kind = Variant({"small": S32, "wide": PRIMITIVE["s64"], "ratio": F64, "text": STRING, "null": UNIT})
    assert (kind.size, kind.align, kind.flat) == (16, 8, ("i32", "i64", "i32"))
    memory = Memory()
    assert kind.lower(memory, Case("ratio", 1.5)) == [2, struct.unpack("<q", struct.pack("<d", 1.5))[0], 0]
    assert kind.lift(memory, iter([2, struct.unpack("<q", struct.pack("<d", 1.5))[0], 0])) == Case("ratio", 1.5)
    assert kind.lift(memory, iter([0, -1, 0])) == Case("small", -1)


@pytest.mark.parametrize(
    ("name", "number", "value"),
    [("u8", 0x1FF, 255), ("s8", 0xFF, -1), ("u32", -1, 0xFFFFFFFF), ("s32", -1, -1), ("u64", -1, (1 << 64) - 1)],
)
def test_a_number_on_the_stack_is_its_bits(name: str, number: int, value: int) -> None:
    assert PRIMITIVE[name].lift(Memory(), iter([number])) == value


#: Of one to four bytes.
LETTERS = "aé漢🎉"
NUMBERS = {name: PRIMITIVE[name] for name in ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")}


def integers(name: str) -> st.SearchStrategy[int]:
    bits = int(name[1:])
    return st.integers(0, (1 << bits) - 1) if name[0] == "u" else st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)


@st.composite
def typed(draw: st.DrawFn, depth: int = 3) -> tuple[Type, Any]:
    """A type and a value of it."""
    leaves = ["number", "bool", "char", "string", "float64", "bytes", "enum"]
    match draw(st.sampled_from(leaves + ["list", "tuple", "record", "option", "expected", "variant"] * (depth > 0))):
        case "number":
            name = draw(st.sampled_from(sorted(NUMBERS)))
            return NUMBERS[name], draw(integers(name))
        case "bool":
            return PRIMITIVE["bool"], draw(st.booleans())
        case "char":
            return PRIMITIVE["char"], draw(st.sampled_from(LETTERS))
        case "string":
            return STRING, draw(st.text(LETTERS, max_size=9))
        case "float64":
            return F64, draw(st.floats(allow_nan=False))
        case "bytes":
            return Bytes(), draw(st.binary(max_size=9))
        case "enum":
            return Enum(["red", "green", "blue"]), draw(st.sampled_from(["red", "green", "blue"]))
        case "list":
            kind, value = draw(typed(depth - 1))
            return (ListOf(kind), [value] * draw(st.integers(0, 3))) if kind.size else (kind, value)
        case "tuple":
            parts = draw(st.lists(typed(depth - 1), max_size=3))
            return Tuple([kind for kind, _ in parts]), tuple(value for _, value in parts)
        case "record":
            parts = draw(st.lists(typed(depth - 1), min_size=1, max_size=3))
            record = Record({f"field-{index}": kind for index, (kind, _) in enumerate(parts)})
            return record, {f"field-{index}": value for index, (_, value) in enumerate(parts)}
        case "option":
            kind, value = draw(typed(0))
            return Option(kind), draw(st.sampled_from([None, value]))
        case "expected":
            (ok, good), (err, bad) = draw(typed(depth - 1)), draw(typed(depth - 1))
            return Expected(ok, err), draw(st.sampled_from([Ok(good), Err(bad)]))
        case _:
            parts = draw(st.lists(typed(depth - 1), min_size=1, max_size=3))
            cases = {f"case-{index}": kind for index, (kind, _) in enumerate(parts)}
            index = draw(st.integers(0, len(parts) - 1))
            return Variant(cases), Case(f"case-{index}", parts[index][1])


@settings(deadline=None)
@given(typed())
def test_what_is_stored_is_loaded_and_what_is_lowered_is_lifted(pair: tuple[Type, Any]) -> None:
    kind, value = pair
    memory = Memory()
    kind.store(memory, 0, value)
    assert kind.load(memory, 0) == value
    numbers = kind.lower(memory, value)
    assert len(numbers) == len(kind.flat)
    assert kind.lift(memory, iter(numbers)) == value
    assert kind.size % kind.align == 0


@settings(deadline=None)
@given(typed(), st.binary(min_size=512, max_size=512), st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=99))
def test_whatever_a_guest_gives_is_a_value_or_a_fault(pair: tuple[Type, Any], data: bytes, numbers: list[int]) -> None:
    kind, _value = pair
    memory = Memory()
    memory.write(0, data)
    with suppress(Fault):
        kind.load(memory, 0)
    floats = [float(number) if form[0] == "f" else number for number, form in zip(numbers, kind.flat, strict=False)]
    with suppress(Fault, StopIteration):
        kind.lift(memory, iter(floats))


@pytest.mark.parametrize("name", NAMES)
def test_layout_is_that_of_a_c_compiler(name: str, tmp_path: Path) -> None:
    """Of each interface's results: clang, for a target of the same data model, makes of the structures what we do."""
    made = Bindings(interface(name))
    source = [PRELUDE, made.imports()]
    for ours, theirs in zip(functions(interface(name)), interface(name).functions, strict=True):
        kind = made._type(theirs.result)
        source.append(f'_Static_assert(sizeof({kind}) == {ours.result.size}, "{ours.symbol}: size");')
        source.append(f'_Static_assert(_Alignof({kind}) == {ours.result.align}, "{ours.symbol}: alignment");')
    (tmp_path / "layout.c").write_text("\n".join(source))
    command = [*CLANG, "-fsyntax-only", str(tmp_path / "layout.c")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_what_breaks_the_abi() -> None:
    memory = Memory()
    memory.write(0, b"\7")
    with pytest.raises(Fault, match=r"7 is none of the 3 cases \(missing, number, nothing\)"):
        ERROR.load(memory, 0)
    with pytest.raises(Fault, match="beyond"):
        STRING.lift(memory, iter([0xFFFF, 2]))
    with pytest.raises(Fault, match="beyond"):
        ListOf(STRING).lift(memory, iter([0, 1 << 30]))
    with pytest.raises(Fault, match="not UTF-8"):
        memory.write(8, b"\xff")
        STRING.lift(memory, iter([8, 1]))
    with pytest.raises(Fault, match="0xd800 is no character"):
        PRIMITIVE["char"].lift(memory, iter([0xD800]))
    with pytest.raises(Fault, match="3 is no handle of a thing"):
        Handle("thing").lift(memory, iter([3]))


def test_handles() -> None:
    handles = Handles()
    first = handles.add("door", "red")
    second = handles.clone("door", first)
    assert second != first
    handles.drop("door", first)
    assert handles.get("door", second) == "red"
    with pytest.raises(Fault):
        handles.get("door", first)
    with pytest.raises(Fault):
        handles.get("window", second)
    with pytest.raises(Fault):
        handles.drop("door", first)
