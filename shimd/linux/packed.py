"""Values for C, in one block that works wherever it is mapped: words, strings, and pointers to both.

A block is ``{size, count, offsets[count], root…}``, all of 64 bits: at each of the offsets stands a pointer. Both are
from the root on, whose address the reader adds (``unpack`` in ``zygote/zygote.c``, :class:`Block`).
A tuple is a struct, laid out inline; a list is a pointer to its items; ``bytes`` is a pointer to a copy that ends in
a zero, the same one for all that are equal; an ``int`` is itself.
"""

import ctypes
import struct
from array import array
from collections.abc import Sequence
from typing import TypeAlias

Packable: TypeAlias = "int | bytes | tuple[Packable, ...] | list[Packable]"

_WORD = 8
_MASK = (1 << 64) - 1


def pack(root: tuple[Packable, ...]) -> bytes:
    """Pack a struct into a block."""
    packer = _Packer()
    packer.struct(root)
    words, offsets = packer.finished()
    size = (2 + len(offsets) + len(words)) * _WORD + len(packer.data)
    return array("Q", [size, len(offsets), *offsets, *words]).tobytes() + packer.data


class _Packer:
    """Words first, breadth first, then all strings."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._words: list[int] = []
        self._lists: list[tuple[int, list[Packable]]] = []
        self._strings: list[tuple[int, int]] = []
        self._known: dict[bytes, int] = {}

    def struct(self, fields: Sequence[Packable]) -> None:
        words = self._words
        for field in fields:
            if isinstance(field, int):
                words.append(field & _MASK)
            elif isinstance(field, tuple):
                self.struct(field)
            elif isinstance(field, bytes):
                self._strings.append((len(words), self._string(field)))
                words.append(0)
            else:
                self._lists.append((len(words), field))
                words.append(0)

    def _string(self, text: bytes) -> int:
        at = self._known.get(text)
        if at is None:
            at = self._known[text] = len(self.data)
            self.data += text + bytes(_WORD - len(text) % _WORD)
        return at

    def finished(self) -> tuple[list[int], list[int]]:
        """Returns all words, and the offsets at which pointers are."""
        words, pointers = self._words, []
        for index, items in self._lists:  # grows meanwhile
            words[index] = len(words) * _WORD
            pointers.append(index * _WORD)
            self.struct(items)
        for index, at in self._strings:
            words[index] = len(words) * _WORD + at
            pointers.append(index * _WORD)
        return words, pointers


class Block:
    """A block in this process's memory, its pointers made absolute."""

    def __init__(self, packed: bytes) -> None:
        self._buffer = ctypes.create_string_buffer(packed, len(packed))
        _size, count = struct.unpack_from("=2Q", packed)
        start = (2 + count) * _WORD
        self.root = ctypes.addressof(self._buffer) + start
        """The address of the struct."""
        for offset in struct.unpack_from(f"={count}Q", packed, 2 * _WORD):
            pointer = ctypes.c_uint64.from_buffer(self._buffer, start + offset)
            pointer.value += self.root

    @staticmethod
    def words(address: int, count: int) -> Sequence[int]:
        return list((ctypes.c_uint64 * count).from_address(address))
