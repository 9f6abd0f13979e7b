"""Where the library is; ``shimd.engines.componentize`` loads it."""

from pathlib import Path

#: wit-component's version, and the release of what is around it.
VERSION = "0.263.0.2"
LIBRARY = Path(__file__).with_name("libshimd_componentize.so")
