"""A program that comes as several files, in one: what is compiled, and known by its hash, as any other program is.

After the first bytes come the length of a description, the description (JSON), and the parts, whose sizes it has.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass

_MAGIC = b"\0shimd:parts\n"
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Parts:
    plan: str
    """How one is made of them: for whoever does."""
    parts: Sequence[bytes]


def is_parts(data: bytes) -> bool:
    return data.startswith(_MAGIC)


def join(parts: Parts) -> bytes:
    sizes = [len(part) for part in parts.parts]
    description = json.dumps({"plan": parts.plan, "sizes": sizes}).encode()
    return b"".join((_MAGIC, _LENGTH.pack(len(description)), description, *parts.parts))


def split(data: bytes) -> Parts:
    """:raises ValueError: it is broken"""
    try:
        (length,) = _LENGTH.unpack_from(data, len(_MAGIC))
        start = len(_MAGIC) + _LENGTH.size
        description = json.loads(data[start : start + length])
        found, at = [], start + length
        for size in description["sizes"]:
            found.append(data[at : at + size])
            at += size
        plan = description["plan"]
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the list of a program's parts is broken: {error}") from None
    if at != len(data) or not isinstance(plan, str):
        raise ValueError("a program's parts are not what their list says")
    return Parts(plan, found)
