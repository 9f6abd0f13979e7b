"""Settings that are numbers (``docs/settings.md``), looked at before anything is begun: who reads one may be far from
anybody whom it could tell."""

import os
from collections.abc import Callable

from shimd.errors import FailedPrecondition

NUMBERS: dict[str, Callable[[str], float]] = {
    "SHIMD_CACHE_SIZE": int,
    "SHIMD_PROGRAM_SIZE": int,
    "SHIMD_COMPILE_MEMORY": int,
    "SHIMD_COMPILE_CPU_SECONDS": int,
    "SHIMD_COMPILE_SECONDS": float,
    "SHIMD_COMPILE_OUTPUT": int,
    "SHIMD_WASMER_COPY_LIMIT": int,
    "SHIMD_LINGER": float,
    "SHIMD_KEEP_EXITS": float,
    "SHIMD_RUNC_SECONDS": float,
}


def check() -> None:
    """
    :raises FailedPrecondition: one is no number
    """
    for name, number in NUMBERS.items():
        if text := os.environ.get(name):
            try:
                number(text)
            except ValueError:
                kind = "whole number" if number is int else "number"
                raise FailedPrecondition(f"{name}={text!r} is no {kind}: see docs/settings.md") from None
