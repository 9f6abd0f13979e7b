"""WASI preview 1 conformance: the behaviours that the tests of WebAssembly/wasi-testsuite check, on each engine.

The guests are our own, in C; nothing of the originals is in them. ``guests/<group>/<name>.c`` re-creates what the
original of that name in the upstream group checks (``tests/c``, ``tests/assemblyscript/wasm32-wasip1``,
``tests/rust/wasm32-wasip1`` at commit e1f53e0, Apache License 2.0), so that a reader can lay the two side by side. Of
errors that upstream lets depend on the host, those of Unix are expected.
"""
