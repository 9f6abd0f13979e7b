"""shimd's own engines, held to the contract that it holds others to."""

import subprocess
import sys

import pytest

from shimd.engine import InvalidModule
from shimd.testing.contract import *  # noqa: F403
from shimd.testing.contract import _of_modules, parametrize
from shimd.testing.rig import Rig
from tests.wasmer import BINDINGS
from tests.wasmtimes import HOSTS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:  # type: ignore[no-redef]
    if "engine_name" in metafunc.fixturenames:
        parametrize(metafunc, sorted({*_of_modules(), *BINDINGS, *HOSTS}))


def test_text_that_is_none(rig: Rig) -> None:
    with pytest.raises(InvalidModule, match="not valid WebAssembly"):
        rig.precompile("(module (func")


def test_the_text_format_is_taken(rig: Rig) -> None:
    """Our engines do, though none has to."""
    text = '(module (memory (export "memory") 1) (func (export "_start")))'
    assert rig.run(text.encode()).code == 0


#: As Go's: functions imported more than once, among them those that tell wasmtime of a server.
IMPORTED_TWICE = """
(module
  (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_accept" (func (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_accept" (func (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 8) "\\10\\00\\00\\00\\06\\00\\00\\00twice\\n")
  (func (export "_start") (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))))
"""


def test_a_function_that_is_imported_twice(rig: Rig) -> None:
    if rig.engine.name == "wasmedge":
        pytest.skip("its sock_accept has other parameters")
    done = rig.run(IMPORTED_TWICE)
    assert (done.code, done.out) == (0, "twice\n"), done.err


def test_the_fork_server_imports_little() -> None:
    """Each worker pays for what is imported before the fork, in pages and in at-fork hooks."""
    program = """
import sys
import shimd.forkserver.main
heavy = {"importlib.metadata", "random", "threading", "logging", "anyio", "betterproto2", "hashlib"} & set(sys.modules)
assert not heavy, heavy"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
