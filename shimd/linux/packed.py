"""Values for C, in one block that works wherever it is mapped: words, strings, and pointers to both.

A block is ``{size, count, offsets[count], root…}``, all of 64 bits: at each of the offsets stands a pointer, as an
offset from the block's start, to which the reader adds its address (``unpack`` in ``worker/zygote.c``, :class:`Block`).
A tuple is a struct, laid out inline; a list is a pointer to its items; ``bytes`` is a pointer to a copy that ends in
a zero; an ``int`` is itself.
"""

import ctypes
import struct
from collections.abc import Sequence
from typing import TypeAlias

Packable: TypeAlias = "int | bytes | tuple[Packable, ...] | list[Packable]"

_WORD = 8
_MASK = (1 << 64) - 1


def pack(root: tuple[Packable, ...]) -> bytes:
    """The block of a struct, which begins after the offsets."""
    offsets: list[int] = []
    _Packer(offsets).block(root, 0)  # where the root begins depends on the number of pointers
    start = (2 + len(offsets)) * _WORD
    offsets = []
    data = _Packer(offsets).block(root, start)
    return struct.pack(f"<{2 + len(offsets)}Q", start + len(data), len(offsets), *offsets) + data


class _Packer:
    """Lays a struct out: its own words first, then what they point to, breadth first."""

    def __init__(self, offsets: list[int]) -> None:
        self._offsets = offsets
        self._data = bytearray()
        self._pending: list[tuple[int, bytes | list[Packable]]] = []

    def block(self, root: tuple[Packable, ...], start: int) -> bytes:
        self._struct(root, start)
        for position, value in self._pending:  # grows meanwhile
            self._data[position : position + _WORD] = struct.pack("<Q", start + len(self._data))
            self._offsets.append(start + position)
            if isinstance(value, bytes):
                self._data += value + bytes(_WORD - len(value) % _WORD)
            else:
                self._struct(tuple(value), start)
        return bytes(self._data)

    def _struct(self, fields: tuple[Packable, ...], start: int) -> None:
        for field in fields:
            match field:
                case int():
                    self._data += struct.pack("<Q", field & _MASK)
                case tuple():
                    self._struct(field, start)
                case _:
                    self._pending.append((len(self._data), field))
                    self._data += bytes(_WORD)


class Block:
    """A block in this process's memory, its pointers made absolute."""

    def __init__(self, packed: bytes) -> None:
        self._buffer = ctypes.create_string_buffer(packed, len(packed))
        base = ctypes.addressof(self._buffer)
        _size, count = struct.unpack_from("<2Q", packed)
        for offset in struct.unpack_from(f"<{count}Q", packed, 2 * _WORD):
            pointer = ctypes.c_uint64.from_buffer(self._buffer, offset)
            pointer.value += base
        self.root = base + (2 + count) * _WORD
        """The address of the struct."""

    @staticmethod
    def words(address: int, count: int) -> Sequence[int]:
        return list((ctypes.c_uint64 * count).from_address(address))
