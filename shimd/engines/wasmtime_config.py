"""wasmtime's configuration, as data: whoever makes an engine, in Python or in C, makes the same one.

Artefacts are tied to it, so that its checksum is part of their version. ``constants.h`` has it for ``wasmtime.c``.
"""

import zlib

#: ``wasmtime_config_NAME_set`` of the C API (``wasmtime/config.h``).
#:
#: wasmtime 50 traps at a host function of ours that borrows two resources ("BUG: deferred host scope has no call
#: context") unless its support of concurrency, of WASI 0.3, is off.
SETTINGS: dict[str, bool] = {
    "wasm_component_model": True,
    "concurrency_support": False,
}
#: Bumped when something else changes what a compiled artefact is: its files, what is noted of it.
_LAYOUT = 10


def version() -> str:
    """Returns the version of all that artefacts depend on, besides wasmtime itself."""
    return f"{_LAYOUT}-{zlib.crc32(repr(sorted(SETTINGS.items())).encode()):08x}"
