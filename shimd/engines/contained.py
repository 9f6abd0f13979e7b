"""``contained.c`` for workers with Python: a container's files, for engines whose WASI is wasmtime's or WasmEdge's."""

import ctypes
from functools import cache
from pathlib import Path

#: Where a compiler was there to build it; else links that lead out of a directory stay refused.
LIBRARY = Path(__file__).with_name("_wasmtime.so")


@cache
def library() -> ctypes.CDLL | None:
    """Load the library, once, before the node's files are out of sight; ``None`` if it was not built."""
    return ctypes.CDLL(str(LIBRARY)) if LIBRARY.is_file() else None


def enter(wasi: str = "") -> None:
    """Let symbolic links lead where the kernel says, in this process from now on (:attr:`Invocation.contained`).

    For a worker, before it gives up its privileges. Where the kernel cannot do it, links stay as they were.

    :param wasi: the engine whose WASI it is: ``_wasmedge``; empty for wasmtime's
    """
    if (found := library()) is not None:
        found[f"shimd_contained{wasi}"]()
