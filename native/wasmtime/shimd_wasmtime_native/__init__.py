"""Where the library is; ``shimd.engines.wasmtime_native`` loads it."""

from pathlib import Path

#: wasmtime's version, and the release of what is around it.
VERSION = "48.0.8.1"
LIBRARY = Path(__file__).with_name("libshimd_wasmtime.so")
