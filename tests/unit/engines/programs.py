"""Programs by what their outlines have, in the binary format."""

import wasmtime


def binary(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def module(*imports: tuple[str, str], exports: tuple[str, ...] = ("_start",), custom: str = "") -> bytes:
    """Functions that are imported, functions that are exported, and a custom section before all others."""
    imported = "".join(f'(import "{of}" "{name}" (func))' for of, name in imports)
    exported = "".join(f'(func (export "{name}"))' for name in exports)
    first = f'(@custom "{custom}" (before first) "x")' if custom else ""
    return binary(f"(module {first} {imported} {exported})")


def component(*imports: str, exports: tuple[str, ...] = ()) -> bytes:
    """Interfaces that are imported and exported."""
    imported = "".join(f'(import "{name}" (instance))' for name in imports)
    exported = "".join(f'(instance $i{n}) (export "{name}" (instance $i{n}))' for n, name in enumerate(exports))
    return binary(f"(component {imported} {exported})")


def slow(functions: int) -> bytes:
    """A module that takes a while to compile: some 2 ms of processor time for three of its functions."""
    return _with_code(functions, b"\0" + b"".join(b"\x41" + bytes([i % 64]) + b"\x1a" for i in range(100)) + b"\x0b")


def _with_code(functions: int, body: bytes) -> bytes:
    types = _section(1, b"\1\x60\0\0")
    declared = _section(3, _number(functions) + b"\0" * functions)
    exported = _section(7, b"\1\6_start\0\0")
    code = _section(10, _number(functions) + (_number(len(body)) + body) * functions)
    return b"\0asm\1\0\0\0" + types + declared + exported + code


def _section(id: int, contents: bytes) -> bytes:
    return bytes([id]) + _number(len(contents)) + contents


def _number(value: int) -> bytes:
    """LEB128."""
    made = b""
    while value >= 0x80:
        made, value = made + bytes([value & 0x7F | 0x80]), value >> 7
    return made + bytes([value])
