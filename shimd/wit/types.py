"""Types and how their values pass: in memory (``load``, ``store``), and as numbers on the stack (``lift``, ``lower``).

======================  ==================================================================
WIT                     Python
======================  ==================================================================
numbers, bool, string   ``int``, ``float``, ``bool``, ``str``
char                    ``str`` of one character
list<u8>                ``bytes``; any other list: ``list``
record                  ``dict``, by the fields' names as in WIT
tuple                   ``tuple``
enum                    ``str``
variant                 :class:`~shimd.component.results.Case`
option<T>               ``None`` or T
expected<T, E>          :class:`~shimd.component.results.Ok` or :class:`~shimd.component.results.Err`;
                        of a host function also T itself, or ``Err`` raised
unit                    ``None``
a resource              the host's object
======================  ==================================================================

Layout is C's: fields in order at their own alignment, a variant's tag before its payload
(WebAssembly/component-model as of mid-2022, ``CanonicalABI.md``, and wit-bindgen 0.2's generated C).
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from shimd.wit.memory import Fault, Memory

Number = int | float


class Type(Protocol):
    @property
    def size(self) -> int:
        """Bytes in memory."""
        ...

    @property
    def align(self) -> int: ...

    @property
    def flat(self) -> Sequence[str]:
        """Kinds of its numbers on the stack: ``i32``, ``i64``, ``f32``, ``f64``."""
        ...

    def load(self, memory: Memory, address: int) -> Any: ...

    def store(self, memory: Memory, address: int, value: Any) -> None: ...

    def lift(self, memory: Memory, numbers: Iterator[Number]) -> Any: ...

    def lower(self, memory: Memory, value: Any) -> list[Number]: ...


def align_up(offset: int, align: int) -> int:
    return -(-offset // align) * align


class Scalar:
    """A number of a ``struct`` format; on the stack an integer is its bits, which the guest may see as signed."""

    def __init__(self, form: str, kind: str) -> None:
        self._struct = struct.Struct("<" + form)
        self._mask = (1 << 8 * self._struct.size) - 1
        self._signed = form.islower() and kind[0] == "i"
        self.size = self.align = self._struct.size
        self.flat = (kind,)

    def load(self, memory: Memory, address: int) -> Any:
        return self._struct.unpack(memory.read(address, self.size))[0]

    def store(self, memory: Memory, address: int, value: Any) -> None:
        memory.write(address, self._struct.pack(value))

    def lift(self, memory: Memory, numbers: Iterator[Number]) -> Any:
        number = next(numbers)
        if not isinstance(number, int):
            return number
        bits = number & self._mask
        return bits - self._mask - 1 if self._signed and bits > self._mask >> 1 else bits

    def lower(self, memory: Memory, value: Any) -> list[Number]:
        return [value]


class Bool(Scalar):
    def __init__(self) -> None:
        super().__init__("B", "i32")

    def load(self, memory: Memory, address: int) -> bool:
        return bool(super().load(memory, address))

    def lift(self, memory: Memory, numbers: Iterator[Number]) -> bool:
        return bool(super().lift(memory, numbers))

    def lower(self, memory: Memory, value: Any) -> list[Number]:
        return [int(value)]


class Char(Scalar):
    def __init__(self) -> None:
        super().__init__("I", "i32")

    def load(self, memory: Memory, address: int) -> str:
        return self._character(super().load(memory, address))

    def store(self, memory: Memory, address: int, value: Any) -> None:
        super().store(memory, address, ord(value))

    def lift(self, memory: Memory, numbers: Iterator[Number]) -> str:
        return self._character(super().lift(memory, numbers))

    def lower(self, memory: Memory, value: Any) -> list[Number]:
        return [ord(value)]

    def _character(self, number: int) -> str:
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            raise Fault(f"{number:#x} is no character")
        return chr(number)


class Sequential:
    """A value elsewhere in memory: a pointer and a length."""

    size, align, flat = 8, 4, ("i32", "i32")

    def load(self, memory: Memory, address: int) -> Any:
        return self._at(memory, *struct.unpack("<II", memory.read(address, 8)))

    def store(self, memory: Memory, address: int, value: Any) -> None:
        memory.write(address, struct.pack("<II", *self._placed(memory, value)))

    def lift(self, memory: Memory, numbers: Iterator[Number]) -> Any:
        return self._at(memory, int(next(numbers)) & 0xFFFFFFFF, int(next(numbers)) & 0xFFFFFFFF)

    def lower(self, memory: Memory, value: Any) -> list[Number]:
        return list(self._placed(memory, value))

    def _at(self, memory: Memory, address: int, length: int) -> Any:
        raise NotImplementedError

    def _placed(self, memory: Memory, value: Any) -> tuple[int, int]:
        """Write a value where the guest will own it; returns address and length."""
        raise NotImplementedError


class Bytes(Sequential):
    """``list<u8>``"""

    def _at(self, memory: Memory, address: int, length: int) -> Any:
        return memory.read(address, length)

    def _placed(self, memory: Memory, value: Any) -> tuple[int, int]:
        address = memory.allocate(len(value), 1)
        memory.write(address, value)
        return address, len(value)


class String(Bytes):
    def _at(self, memory: Memory, address: int, length: int) -> str:
        try:
            return memory.read(address, length).decode()
        except UnicodeDecodeError as error:
            raise Fault(f"a string is not UTF-8: {error.reason}") from None

    def _placed(self, memory: Memory, value: Any) -> tuple[int, int]:
        return super()._placed(memory, value.encode())


class ListOf(Sequential):
    def __init__(self, element: Type) -> None:
        self._element = element

    def _at(self, memory: Memory, address: int, length: int) -> list[Any]:
        memory.read(address, length * self._element.size)  # all of it is there, before much is made of it
        return [self._element.load(memory, address + index * self._element.size) for index in range(length)]

    def _placed(self, memory: Memory, value: Any) -> tuple[int, int]:
        address = memory.allocate(len(value) * self._element.size, self._element.align)
        for index, item in enumerate(value):
            self._element.store(memory, address + index * self._element.size, item)
        return address, len(value)


class Handle(Scalar):
    """A handle of a resource, by the resource's name."""

    def __init__(self, resource: str) -> None:
        super().__init__("I", "i32")
        self.resource = resource

    def load(self, memory: Memory, address: int) -> Any:
        return memory.handles.get(self.resource, super().load(memory, address))

    def store(self, memory: Memory, address: int, value: Any) -> None:
        super().store(memory, address, memory.handles.add(self.resource, value))

    def lift(self, memory: Memory, numbers: Iterator[Number]) -> Any:
        return memory.handles.get(self.resource, super().lift(memory, numbers))

    def lower(self, memory: Memory, value: Any) -> list[Number]:
        return [memory.handles.add(self.resource, value)]
