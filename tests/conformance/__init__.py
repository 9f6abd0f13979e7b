"""WASI conformance: the behaviours that the tests of WebAssembly/wasi-testsuite check, on each engine.

The guests are our own; nothing of the originals is in them. For preview 1 they are in C: ``guests/<group>/<name>.c``
re-creates what the original of that name in the upstream group checks (``tests/c``,
``tests/assemblyscript/wasm32-wasip1``, ``tests/rust/wasm32-wasip1`` at commit e1f53e0, Apache License 2.0), so that a
reader can lay the two side by side. For WASI 0.3 they are in Rust, each a file of
``tests/components/rust/conformance/*/src/cases`` (``tests/rust/wasm32-wasip3``). Of errors that upstream lets depend on
the host, those of Unix are expected.
"""
