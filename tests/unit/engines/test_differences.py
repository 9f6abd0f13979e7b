"""What one engine does and the other does not: each refusal names the way out."""

from pathlib import Path

import pytest

from shimd.engine import Invocation, Preopen, UnsupportedFeature
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


def test_what_is_copied_by_links(tmp_path: Path) -> None:
    """The guest's own file system has none, so what they lead to is there by both names; only in a container, if that
    is outside of the directory."""
    pytest.importorskip("wasmer_sdk")
    from shimd.engines.wasmer.sdk import collect

    (tmp_path / "root/run").mkdir(parents=True)
    (tmp_path / "outside").write_text("outside")
    (tmp_path / "root/run/token").write_text("a token")
    for link, target in {
        "var": "run",
        "file": "run/token",
        "run/up": "..",
        "out": "../outside",
        "proc2": "/proc",
    }.items():
        (tmp_path / "root" / link).symlink_to(target)
    preopen = Preopen(str(tmp_path / "root"), "/")
    inside = {"/run/token", "/var/token", "/file"}
    assert set(collect(Invocation(["app"], preopens=[preopen]))) == inside
    assert set(collect(Invocation(["app"], preopens=[preopen], contained=True))) == inside | {"/out"}


def test_mounts_within_a_preopen_are_the_kernels() -> None:
    preopens = [Preopen("/r/data", "/data", True), Preopen("/r", "/"), Preopen("/x", "/database")]
    assert top_preopens(Invocation(["app"], preopens=preopens)) == [("/r", "/", False)]
    assert top_preopens(Invocation(["app"], preopens=[preopens[0], preopens[2]])) == [
        ("/r/data", "/data", True),
        ("/x", "/database", False),
    ]
