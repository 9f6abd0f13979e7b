"""The outline of a program that is not compiled yet: its imports, exports and custom sections.

Read from the file without its code, with bounded work whatever the bytes are: sections are found by their headers
(core specification 3, "Modules"; component-model Binary.md) and only those with names are read. What is broken, or
beyond the bounds, is left out: the compiler will say so. So a name that is here is in the program, and one that is not
may be.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

#: The version and layer fields after ``\0asm``: a module's, and a component's.
_CORE, _COMPONENT = b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0"
#: Sections looked at, bytes read of one, names kept of a kind: more than any toolchain makes.
_SECTIONS, _READ, _NAMES = 20_000, 1 << 20, 20_000
#: Bytes that hold a section's header, and a custom section's name, as far as it is kept.
_HEAD = 128
_CUSTOM, _CORE_IMPORT, _CORE_EXPORT, _IMPORT, _EXPORT = 0, 2, 7, 10, 11


@dataclass
class Outline:
    component: bool
    imports: list[tuple[str, str]] = field(default_factory=list)
    """A module's imports are (module, name); a component's, (interface or function, "")."""
    exports: list[str] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)
    """Names of the custom sections, in their order."""
    first: str | None = None
    """The custom section that the file begins with."""
    complete: bool = True
    """True if all imports and exports are here; False if some were left out, as broken or beyond the bounds."""


def read(file: int) -> Outline | None:
    """Read the outline of a file; ``None``: it is neither a module nor a component in the binary format.

    :raises OSError: it cannot be read, or not from the middle
    """
    head = os.pread(file, len(_CORE), 0)
    if head not in (_CORE, _COMPONENT):
        return None
    found = Outline(head == _COMPONENT)
    readers = _of_component(found) if found.component else _of_module(found)
    for number, (id, start, size) in enumerate(_sections(file, found)):
        if id == _CUSTOM:
            _note_custom(found, file, start, size, first=number == 0)
        elif reader := readers.get(id):
            whole = _note(reader, os.pread(file, min(size, _READ), start))
            found.complete = found.complete and whole
    return found


def _sections(file: int, found: Outline) -> Iterator[tuple[int, int, int]]:
    """Yield each whole section as (id, where its contents start, their size).

    What lies behind the last of them may have imports and exports: the outline is complete if that is the end.
    """
    position, end = len(_CORE), os.fstat(file).st_size
    for _ in range(_SECTIONS):
        if position == end:
            return
        cursor = Cursor(os.pread(file, 6, position))
        try:
            id, size = cursor.byte(), cursor.number()
        except IndexError:
            break
        start = position + cursor.position
        if start + size > end:
            break
        position = start + size
        yield id, start, size
    found.complete = found.complete and position == end


class Cursor:
    """Reads bytes one after the other; beyond their end is an IndexError."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data = data
        self.position = position

    def byte(self) -> int:
        self.position += 1
        return self._data[self.position - 1]

    def number(self) -> int:
        """Read an unsigned LEB128 number of 32 bits (core specification 5.2.2): five bytes at most."""
        value = 0
        for index in range(5):
            byte = self.byte()
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value
        raise IndexError

    def name(self) -> str:
        length, start = self.number(), self.position
        self.position += length
        if self.position > len(self._data):
            raise IndexError
        return self._data[start : self.position].decode(errors="replace")


def _note_custom(found: Outline, file: int, start: int, size: int, *, first: bool) -> None:
    try:
        name = Cursor(os.pread(file, min(size, _HEAD), start)).name()
    except IndexError:
        return
    if len(found.sections) < _NAMES:
        found.sections.append(name)
    if first:
        found.first = name


Reader = Callable[[Cursor], None]


def _note(reader: Reader, data: bytes) -> bool:
    """Note a vector of imports or exports, as far as it goes; returns whether that is all of it."""
    cursor = Cursor(data)
    try:
        count = cursor.number()
        for _ in range(min(count, _NAMES)):
            reader(cursor)
    except (IndexError, ValueError):
        return False
    return count <= _NAMES


def _of_module(found: Outline) -> dict[int, Reader]:
    def imported(cursor: Cursor) -> None:
        name = cursor.name(), cursor.name()
        found.imports.append(name)
        _skip_kind(cursor)

    def exported(cursor: Cursor) -> None:
        found.exports.append(cursor.name())
        cursor.byte()
        cursor.number()

    return {_CORE_IMPORT: imported, _CORE_EXPORT: exported}


def _skip_kind(cursor: Cursor) -> None:
    """Skip the kind of an import: function, table, memory, global or tag."""
    match cursor.byte():
        case 0:
            cursor.number()
        case 1:
            _skip_type(cursor)
            _skip_limits(cursor)
        case 2:
            _skip_limits(cursor)
        case 3:
            _skip_type(cursor)
            cursor.byte()
        case 4:
            cursor.byte()
            cursor.number()
        case kind:
            raise ValueError(kind)


def _skip_type(cursor: Cursor) -> None:
    """Skip a value type; a typed reference is followed by the heap type that it refers to."""
    if cursor.byte() in (0x63, 0x64):
        cursor.number()


def _skip_limits(cursor: Cursor) -> None:
    flags = cursor.byte()
    cursor.number()
    if flags & 1:
        cursor.number()
    if flags & 8:
        cursor.number()


def _of_component(found: Outline) -> dict[int, Reader]:
    """Returns the readers of a component's sections (Binary.md, "Import and Export Definitions")."""

    def imported(cursor: Cursor) -> None:
        name = _interface(cursor)
        found.imports.append((name, ""))
        _skip_description(cursor)

    def exported(cursor: Cursor) -> None:
        found.exports.append(_interface(cursor))
        if cursor.byte() == 0:  # a sort of core's
            cursor.byte()
        cursor.number()
        if cursor.byte() == 1:
            _skip_description(cursor)

    return {_IMPORT: imported, _EXPORT: exported}


def _interface(cursor: Cursor) -> str:
    if cursor.byte() > 1:
        raise ValueError
    return cursor.name()


def _skip_description(cursor: Cursor) -> None:
    match cursor.byte():
        case 0:
            cursor.byte()
            cursor.number()
        case 2:
            if cursor.byte() == 0:
                cursor.number()
            else:
                _skip_type(cursor)
        case 3:
            if cursor.byte() == 0:
                cursor.number()
        case 1 | 4 | 5:
            cursor.number()
        case kind:
            raise ValueError(kind)
