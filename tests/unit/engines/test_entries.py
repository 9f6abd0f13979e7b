"""Functions other than ``_start``, and what a module imports: what engines find wrong before it starts."""

import pytest

from shimd.engine import InvalidModule, Invocation, UnsupportedFeature
from shimd.engines.registry import lacking
from shimd.testing.contract import WASI
from shimd.testing.rig import Rig
from tests.wasmer import NATIVE

#: Those that can tell, where they are; WasmEdge is in Debian 13 (e2e/test_trixie.py).
ENGINES = ["wasmtime", *(["wasmer"] if NATIVE else []), *([] if lacking("wasmedge") else ["wasmedge"])]
FUNCTIONS = f"""(module (import "{WASI}" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)
  (func (export "_start")) (func (export "other") (call $exit (i32.const 7))) (func (export "traps") unreachable)
  (func (export "takes") (param i32)))"""
each = pytest.mark.parametrize("engine_name", ENGINES)


@each
def test_another_function(rig: Rig) -> None:
    artifact = rig.precompile(FUNCTIONS)
    assert rig.start(artifact, Invocation(["app"], entry="other")).end().code == 7
    trapped = rig.start(artifact, Invocation(["app"], entry="traps")).end()
    assert trapped.code == 134 and "unreachable" in trapped.err


@each
@pytest.mark.parametrize(
    ("entry", "words"),
    [("memory", "is not a function"), ("takes", "takes parameters"), ("nope", "it has: _start, other, t")],
)
def test_entries_that_are_none(rig: Rig, entry: str, words: str) -> None:
    with pytest.raises(InvalidModule, match=words):
        rig.check(rig.precompile(FUNCTIONS), Invocation(["app"], entry=entry))


IMPORTS = [
    ("wasmtime", "env", "log", "the module imports env.log, which is not WASI preview 1"),
    ("wasmtime", "wasix_32v1", "thread_spawn", "WASIX modules run on wasmer"),
    ("wasmtime", WASI, "no_such_call", "does not link"),
    ("wasmer", "env", "log", "the module imports env.log, which is neither WASI preview 1 nor WASIX"),
    ("wasmer", WASI, "no_such_call", f"the module imports {WASI}.no_such_call"),
    ("wasmer", WASI, "fd_write", "does not link"),
    ("wasmedge", "env", "log", "the module imports env.log, which is neither WASI preview 1 nor WASI-NN's"),
    ("wasmedge", "wasix_32v1", "thread_spawn", "WASIX modules run on wasmer"),
    ("wasmedge", "wasi:logging/logging", "log", "which is neither WASI"),  # built in, and past the preopens
    ("wasmedge", WASI, "no_such_call", f"the module imports {WASI}.no_such_call, which wasmedge does not have"),
]


@pytest.mark.parametrize(
    ("engine_name", "module", "name", "words"), [case for case in IMPORTS if case[0] in ENGINES], ids=str
)
def test_imports_that_are_not_there(rig: Rig, module: str, name: str, words: str) -> None:
    wat = f'(module (import "{module}" "{name}" (func)) (memory (export "memory") 1) (func (export "_start")))'
    artifact = rig.precompile(wat)  # valid, so it compiles; that it does not run here is known before it starts
    with pytest.raises(UnsupportedFeature, match=words):
        rig.check(artifact, Invocation(["app"]))
