"""What an HTTP app has answered, in numbers: a file in memory that its process writes and the daemon reads, by the name
of a descriptor of that process. ``native/wasmtime/src/http/tally.rs`` has the same.

The file is of slots of 256 bytes, one for each process that serves. A slot: a magic of 16 bytes, then little-endian
numbers of 64 bits: answers by their class, from 1xx to 5xx; the sum of their times until they began, in microseconds;
and how many took at most each of :data:`BOUNDS`, but longer than the one before, and how many longer than all.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

#: Of the file (memfd_create(2)).
NAME = "shimd-http"
MAGIC = b"shimd-http 1".ljust(16, b"\0")
SLOT = 256
#: Processes of one app that are counted.
MOST = 64
#: Microseconds.
BOUNDS = (
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
)  # fmt: skip
CLASSES = 5
LAYOUT = struct.Struct(f"<16s{CLASSES}QQ{len(BOUNDS) + 1}Q")


@dataclass(frozen=True)
class Tally:
    classes: tuple[int, ...]
    """Answers by their class, from 1xx to 5xx."""
    microseconds: int
    buckets: tuple[int, ...]


def read(data: bytes) -> Tally | None:
    """Returns the sum of all slots; ``None``: it is no such file."""
    found = [LAYOUT.unpack_from(data, at) for at in range(0, len(data) - LAYOUT.size + 1, SLOT)][:MOST]
    slots = [numbers[1:] for numbers in found if numbers[0] == MAGIC]
    if not slots:
        return None
    total = _sums(slots)
    return Tally(total[:CLASSES], total[CLASSES], total[CLASSES + 1 :])


def _sums(slots: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*slots, strict=True)))
