"""``contained.c`` for workers with Python: a container's files, for engines whose WASI is wasmtime's or WasmEdge's."""

import ctypes
from functools import cache
from pathlib import Path

#: Where a compiler was there to build it; else links that lead out of a directory stay refused.
LIBRARY = Path(__file__).with_name("_wasmtime.so")


@cache
def library() -> ctypes.CDLL | None:
    """To be loaded before the node's files are out of sight."""
    return ctypes.CDLL(str(LIBRARY)) if LIBRARY.is_file() else None


def begin(wasi: str = "") -> None:
    """From now on, in this process, a link leads where the kernel says (:attr:`Invocation.contained`).

    For a worker, before it gives up its privileges. Where the kernel cannot do it, links stay as they were.

    :param wasi: whose it is: ``_wasmedge``, or wasmtime's
    """
    if (found := library()) is not None:
        found[f"shimd_contained{wasi}"]()
