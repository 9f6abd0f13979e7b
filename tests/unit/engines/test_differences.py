"""What one engine does and the other does not: each refusal names the way out."""

import pytest

from shimd.engines.base import Invocation, Preopen, UnsupportedFeature
from shimd.engines.core import top_preopens
from shimd.testing.contract import RETURNS
from shimd.testing.rig import Rig
from tests.wasmer import BINDINGS

wasmtime_only = pytest.mark.parametrize("engine_name", ["wasmtime"])
wasmer_only = pytest.mark.parametrize("engine_name", BINDINGS)
wasmer_sdk_only = pytest.mark.parametrize("engine_name", ["wasmer-sdk"])
COMPONENT = """(component
  (core module $m (func (export "run") (result i32) (i32.const %d)))
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $cli (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $cli)))"""
FUNCTIONS = """(module (memory (export "memory") 1) (func (export "_start") unreachable)
  (func (export "other")) (func (export "takes") (param i32)))"""


@wasmtime_only
@pytest.mark.parametrize(("answer", "code"), [(0, 0), (1, 1)])
def test_components(rig: Rig, answer: int, code: int) -> None:
    assert rig.run(COMPONENT % answer).code == code


@wasmer_only
def test_no_components(rig: Rig) -> None:
    with pytest.raises(UnsupportedFeature, match=r"component: use the wasmtime engine"):
        rig.precompile(bytes(_component()))


def _component() -> bytes:
    import wasmtime

    return bytes(wasmtime.wat2wasm(COMPONENT % 0))


@wasmer_sdk_only
def test_no_other_function(rig: Rig) -> None:
    with pytest.raises(UnsupportedFeature, match=r"no function but _start: for other, use the wasmtime engine"):
        rig.check(rig.precompile(FUNCTIONS), Invocation(["app"], entry="other"))


@wasmer_sdk_only
def test_no_shared_directories(rig: Rig) -> None:
    with pytest.raises(UnsupportedFeature, match=r"share /data read-write: mount it read-only, or use the wasmtime"):
        rig.check(rig.precompile(RETURNS), Invocation(["app"], preopens=[Preopen("/tmp", "/data")]))


def test_mounts_within_a_preopen_are_the_kernels() -> None:
    preopens = [Preopen("/r/data", "/data", True), Preopen("/r", "/"), Preopen("/x", "/database")]
    assert top_preopens(Invocation(["app"], preopens=preopens)) == [("/r", "/", False)]
    assert top_preopens(Invocation(["app"], preopens=[preopens[0], preopens[2]])) == [
        ("/r/data", "/data", True),
        ("/x", "/database", False),
    ]
