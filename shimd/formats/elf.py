"""ELF files that are no programs (elf(5)), recognised by their headers, with bounded reads."""

import os
import struct
from typing import NamedTuple

#: Machine code of others is never run: it would be outside of the sandbox.
WAY_OUT = "give the WebAssembly that it was made of, which is compiled here"
#: wasmtime's own value of ``e_ident[EI_OSABI]``, in what it has compiled.
_WASMTIME = 200
_REL, _DYN, _CORE = 1, 3, 4
#: Program headers: ``PT_DYNAMIC``, ``PT_INTERP``. Of the first: ``DT_NULL``, ``DT_FLAGS_1``, and in that ``DF_1_PIE``.
_DYNAMIC, _INTERP, _NULL, _FLAGS_1, _PIE = 2, 3, 0, 0x6FFFFFFB, 0x08000000
#: Most program headers and bytes of dynamic entries that are read; where the names of symbols are, as linkers do it.
_HEADERS, _ENTRIES, _NAMES = 64, 1 << 16, 1 << 18
#: A symbol of shared objects that WasmEdge has compiled.
_WASMEDGE = b"\0wasm.code\0"


def no_program(fd: int) -> str | None:
    """Returns the kind of an ELF file that is no program; ``None``: it is one, or nobody can tell."""
    try:
        return _no_program(fd)
    except (struct.error, OverflowError, OSError):  # it is not whole, or leads nowhere: who executes it is told
        return None


def _no_program(fd: int) -> str | None:
    ident = os.pread(fd, 16, 0)
    _magic, bits, endian, _version, abi = struct.unpack_from("4s4B", ident)
    order, wide = "<" if endian == 1 else ">", bits == 2
    if abi == _WASMTIME:
        return f"machine code that wasmtime has compiled ahead of time (.cwasm): {WAY_OUT}"
    (kind,) = struct.unpack_from(f"{order}H", os.pread(fd, 2, 16))
    if kind == _REL:
        return "an object file (.o)"
    if kind == _CORE:
        return "a core dump"
    if kind == _DYN and _is_library(fd, order, wide=wide):
        return _library(fd)
    return None


def _library(fd: int) -> str:
    if _WASMEDGE in os.pread(fd, _NAMES, 0):
        return f"machine code that WasmEdge has compiled ahead of time (a shared object): {WAY_OUT}"
    return "a shared object (.so)"


class _Segment(NamedTuple):
    kind: int
    offset: int
    size: int


def _is_library(fd: int, order: str, *, wide: bool) -> bool:
    """Returns whether nobody runs it: it has no entry, names no interpreter, and does not say that it is an
    executable."""
    (entry,) = struct.unpack(f"{order}{'Q' if wide else 'I'}", os.pread(fd, 8 if wide else 4, 24))
    segments = _segments(fd, order, wide=wide)
    if entry or any(segment.kind == _INTERP for segment in segments):
        return False
    return not any(_says_pie(fd, one, order, wide=wide) for one in segments if one.kind == _DYNAMIC)


def _segments(fd: int, order: str, *, wide: bool) -> list[_Segment]:
    (table,) = struct.unpack(f"{order}{'Q' if wide else 'I'}", os.pread(fd, 8 if wide else 4, 32 if wide else 28))
    size, count = struct.unpack(f"{order}2H", os.pread(fd, 4, 54 if wide else 42))
    found = []
    for index in range(min(count, _HEADERS)):
        header = os.pread(fd, size, table + index * size)
        if wide:
            kind, _flags, offset, _at, _physical, length = struct.unpack_from(f"{order}2I4Q", header)
        else:
            kind, offset, _at, _physical, length = struct.unpack_from(f"{order}5I", header)
        found.append(_Segment(kind, offset, length))
    return found


def _says_pie(fd: int, dynamic: _Segment, order: str, *, wide: bool) -> bool:
    data = os.pread(fd, min(dynamic.size, _ENTRIES), dynamic.offset)
    entry = struct.Struct(f"{order}2{'Q' if wide else 'I'}")
    for tag, value in entry.iter_unpack(data[: len(data) // entry.size * entry.size]):
        if tag == _NULL:
            break
        if tag == _FLAGS_1:
            return bool(value & _PIE)
    return False
