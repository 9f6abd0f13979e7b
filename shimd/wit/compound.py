"""Types made of others: tuples, records, variants and what is written as one."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shimd.component.results import Case, Err, Ok
from shimd.wit.memory import Fault, Memory
from shimd.wit.types import Number, Scalar, Type, align_up


class Tuple:
    """A tuple; with other Python values also a record, and ``unit``, which has no parts."""

    def __init__(self, parts: Sequence[Type]) -> None:
        self._parts = parts
        self._offsets = []
        offset = 0
        for part in parts:
            offset = align_up(offset, part.align)
            self._offsets.append(offset)
            offset += part.size
        self.align = max((part.align for part in parts), default=1)
        self.size = align_up(offset, self.align)
        self.flat = tuple(kind for part in parts for kind in part.flat)

    def load(self, memory: Memory, address: int) -> Any:
        parts = zip(self._parts, self._offsets, strict=True)
        return self._made([part.load(memory, address + offset) for part, offset in parts])

    def store(self, memory: Memory, address: int, value: Any) -> None:
        for part, offset, item in zip(self._parts, self._offsets, self._items(value), strict=True):
            part.store(memory, address + offset, item)

    def lift(self, memory: Memory, numbers: Iterator[Number]) -> Any:
        return self._made([part.lift(memory, numbers) for part in self._parts])

    def lower(self, memory: Memory, value: Any) -> list[Number]:
        pairs = zip(self._parts, self._items(value), strict=True)
        return [number for part, item in pairs for number in part.lower(memory, item)]

    def _made(self, items: list[Any]) -> Any:
        return tuple(items)

    def _items(self, value: Any) -> Sequence[Any]:
        return value  # type: ignore[no-any-return]


class Unit(Tuple):
    def __init__(self) -> None:
        super().__init__(())

    def _made(self, items: list[Any]) -> None:
        return None

    def _items(self, value: Any) -> Sequence[Any]:
        return ()


class Record(Tuple):
    def __init__(self, fields: Mapping[str, Type]) -> None:
        super().__init__(list(fields.values()))
        self._names = list(fields)

    def _made(self, items: list[Any]) -> dict[str, Any]:
        return dict(zip(self._names, items, strict=True))

    def _items(self, value: Any) -> Sequence[Any]:
        return [value[name] for name in self._names]


class Variant:
    """A variant; with other Python values also an enum, an option and ``expected``."""

    def __init__(self, cases: Mapping[str, Type]) -> None:
        self._names = list(cases)
        self._cases = list(cases.values())
        self._tag = Scalar("B" if len(cases) <= 1 << 8 else "H" if len(cases) <= 1 << 16 else "I", "i32")
        self.align = max(self._tag.align, *(case.align for case in self._cases))
        self._offset = align_up(self._tag.size, max(case.align for case in self._cases))
        self.size = align_up(self._offset + max(case.size for case in self._cases), self.align)
        self._joined = _join([case.flat for case in self._cases])
        self.flat = ("i32", *self._joined)

    def load(self, memory: Memory, address: int) -> Any:
        index = self._known(self._tag.load(memory, address))
        return self._made(self._names[index], self._cases[index].load(memory, address + self._offset))

    def store(self, memory: Memory, address: int, value: Any) -> None:
        name, payload = self._split(value)
        index = self._names.index(name)
        self._tag.store(memory, address, index)
        self._cases[index].store(memory, address + self._offset, payload)

    def lift(self, memory: Memory, numbers: Iterator[Number]) -> Any:
        index = self._known(int(next(numbers)) & 0xFFFFFFFF)
        joined = [next(numbers) for _ in self._joined]
        case = self._cases[index]
        own = [_cast(number, was, kind) for number, was, kind in zip(joined, self._joined, case.flat, strict=False)]
        return self._made(self._names[index], case.lift(memory, iter(own)))

    def lower(self, memory: Memory, value: Any) -> list[Number]:
        name, payload = self._split(value)
        index = self._names.index(name)
        own = self._cases[index].lower(memory, payload)
        kinds = self._cases[index].flat
        cast = [_cast(number, was, kind) for number, was, kind in zip(own, kinds, self._joined, strict=False)]
        return [index, *cast, *([0] * (len(self._joined) - len(own)))]

    def _known(self, index: int) -> int:
        if index >= len(self._cases):
            raise Fault(f"{index} is none of the {len(self._cases)} cases ({', '.join(self._names)})")
        return index

    def _made(self, name: str, payload: Any) -> Any:
        return Case(name, payload)

    def _split(self, value: Any) -> tuple[str, Any]:
        return value  # type: ignore[no-any-return]


class Enum(Variant):
    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(dict.fromkeys(names, UNIT))

    def _made(self, name: str, payload: Any) -> str:
        return name

    def _split(self, value: Any) -> tuple[str, Any]:
        return value, None


class Option(Variant):
    def __init__(self, some: Type) -> None:
        super().__init__({"none": UNIT, "some": some})

    def _made(self, name: str, payload: Any) -> Any:
        return payload

    def _split(self, value: Any) -> tuple[str, Any]:
        return ("none", None) if value is None else ("some", value)


class Expected(Variant):
    def __init__(self, ok: Type, err: Type) -> None:
        super().__init__({"ok": ok, "err": err})

    def _made(self, name: str, payload: Any) -> Ok | Err:
        return Ok(payload) if name == "ok" else Err(payload)

    def _split(self, value: Any) -> tuple[str, Any]:
        if isinstance(value, Err):
            return "err", value.value
        return "ok", value.value if isinstance(value, Ok) else value


def _join(cases: Sequence[Sequence[str]]) -> list[str]:
    """Returns the kinds that hold the numbers of any case (canonical ABI, "flatten_variant")."""
    joined: list[str] = []
    for flat in cases:
        for index, kind in enumerate(flat):
            if index == len(joined):
                joined.append(kind)
            elif joined[index] != kind:
                joined[index] = "i32" if {joined[index], kind} == {"i32", "f32"} else "i64"
    return joined


_FORMS = {"i32": "<I", "i64": "<Q", "f32": "<f", "f64": "<d"}


def _cast(number: Number, was: str, kind: str) -> Number:
    """Convert a number to another kind with the same bits, widened or cut."""
    if was == kind:
        return number
    bits = int(number) & (1 << 64) - 1 if was[0] == "i" else int.from_bytes(struct.pack(_FORMS[was], number), "little")
    if kind[0] == "i":
        return bits & (1 << int(kind[1:])) - 1
    cast: float = struct.unpack(_FORMS[kind], (bits & (1 << int(kind[1:])) - 1).to_bytes(int(kind[1:]) // 8, "little"))[
        0
    ]
    return cast


UNIT = Unit()
