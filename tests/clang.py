"""clang for guests, which makes the same of them on every machine.

Where binaryen is installed, clang has its ``wasm-opt`` optimize what was linked, and names that backtraces tell are
lost. The switch against that, ``--no-wasm-opt``, came after Debian 12's; but any clang looks into ``-B`` first.
"""

from pathlib import Path

CLANG = ("clang", "--target=wasm32-wasi", f"-B{Path(__file__).with_name('no-wasm-opt')}")
