"""Where the library is; ``shimd.engines.wasmer.native`` loads it."""

from pathlib import Path

#: wasmer's version, and the release of what is around it.
VERSION = "7.4.2.1"
LIBRARY = Path(__file__).with_name("libshimd_wasmer.so")
