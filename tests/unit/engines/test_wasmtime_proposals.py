"""What WebAssembly has besides its first version: a module each, on both of wasmtime's hosts; and what they say of the
rest."""

import pytest

from shimd.engine import InvalidModule, UnsupportedFeature
from shimd.engines.wasmtime import PORTABLE
from shimd.testing.contract import parametrize
from shimd.testing.rig import Rig
from tests.unit.engines.test_wasmtime_native import NEWER
from tests.wasmtimes import HOSTS

_V = "(v128.const i32x4 0 0 0 0)"
#: Each defines ``$f``, which traps if something is not as it must be.
PROPOSALS = {
    "garbage collection": """(type $s (struct (field (mut i32))))
      (func $f (local $it (ref $s)) (local.set $it (struct.new $s (i32.const 1)))
        (struct.set $s 0 (local.get $it) (i32.const 7))
        (if (i32.ne (struct.get $s 0 (local.get $it)) (i32.const 7)) (then unreachable)))""",
    "function references": """(type $t (func (result i32))) (elem declare func $g) (func $g (type $t) (i32.const 7))
      (func $f (if (i32.ne (call_ref $t (ref.func $g)) (i32.const 7)) (then unreachable)))""",
    "exceptions": """(tag $t (param i32))
      (func $f (block $b (result i32) (try_table (result i32) (catch $t $b) (throw $t (i32.const 7))))
        (if (i32.ne (i32.const 7)) (then unreachable)))""",
    "64-bit memories": """(memory $m i64 1)
      (func $f (i64.store $m (i64.const 8) (i64.const 7))
        (if (i64.ne (i64.load $m (i64.const 8)) (i64.const 7)) (then unreachable)))""",
    "64-bit tables": """(table $t i64 1 funcref)
      (func $f (if (i64.ne (table.size $t) (i64.const 1)) (then unreachable)))""",
    "several memories": """(memory $a 1) (memory $b 1)
      (func $f (i32.store $b (i32.const 0) (i32.const 7))
        (if (i32.load $a (i32.const 0)) (then unreachable)))""",
    # A call that left its frame behind would overflow the stack.
    "tail calls": """(func $g (param i32)
        (if (local.get 0) (then (return_call $g (i32.sub (local.get 0) (i32.const 1))))))
      (func $f (return_call $g (i32.const 10000000)))""",
    "threads: atomics": """(memory $m 1)
      (func $f (drop (i32.atomic.rmw.add $m (i32.const 0) (i32.const 7)))
        (if (i32.ne (i32.atomic.load $m (i32.const 0)) (i32.const 7)) (then unreachable)))""",
    "SIMD": f"(func $f (if (i32x4.all_true (i32x4.add {_V} {_V})) (then unreachable)))",
    "relaxed SIMD": f"(func $f (if (v128.any_true (f32x4.relaxed_madd {_V} {_V} {_V})) (then unreachable)))",
    "extended constants": """(global $g i32 (i32.add (i32.const 3) (i32.const 4)))
      (func $f (if (i32.ne (global.get $g) (i32.const 7)) (then unreachable)))""",
    "bulk memory": """(memory 1)
      (func $f (memory.fill (i32.const 0) (i32.const 7) (i32.const 8))
        (if (i32.ne (i32.load8_u (i32.const 3)) (i32.const 7)) (then unreachable)))""",
    "reference types": """(table $t 1 externref)
      (func $f (table.set $t (i32.const 0) (ref.null extern))
        (if (i32.eqz (ref.is_null (table.get $t (i32.const 0)))) (then unreachable)))""",
    "several values": """(func $g (result i32 i32) (i32.const 7) (i32.const 7))
      (func $f (if (i32.ne (call $g)) (then unreachable)))""",
}
#: What is on as of wasmtime 50, and how it is called where it is off.
WIDE = "(func $f (i64.mul_wide_u (i64.const -1) (i64.const 2)) (if (i64.ne (i64.const 1)) (then unreachable)) drop)"
LATER = "wide arithmetic support is not enabled"
#: What is off, as in wasmtime itself, and how it is called.
OFF = {
    "(memory 1 (pagesize 1)) (func $f)": "the custom page sizes proposal",
    "(type $t (func)) (type $c (cont $t)) (func $f (drop (ref.null $c)))": "stack switching is disabled",
    "(global (shared i32) (i32.const 1)) (func $f)": "the shared-everything-threads proposal",
    "(tag $t) (func $f try (throw $t) catch $t end)": "legacy_exceptions feature required",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc, [PORTABLE] if "newer" in metafunc.fixturenames else HOSTS)


def module(does: str) -> str:
    return f'(module {does} (func (export "_start") (call $f)))'


@pytest.mark.parametrize("proposal", PROPOSALS)
def test_what_is_on(rig: Rig, proposal: str) -> None:
    done = rig.run(module(PROPOSALS[proposal]))
    assert done.code == 0, done.err


def test_shared_memories_are_off(rig: Rig) -> None:
    done = rig.run(module("(memory 1 1 shared) (func $f)"))
    assert done.code == 134 and "shared memory support is disabled" in done.err


def test_wide_arithmetic(rig: Rig) -> None:
    if rig.engine.name == PORTABLE:
        assert rig.run(module(WIDE)).code == 0
        return
    with pytest.raises(InvalidModule, match=LATER):
        rig.precompile(module(WIDE))


@pytest.mark.parametrize("does", OFF)
def test_what_is_off_is_named(rig: Rig, does: str) -> None:
    with pytest.raises(InvalidModule, match=f"^not valid WebAssembly: .*{OFF[does]}"):
        rig.precompile(module(does))


@pytest.mark.parametrize("newer", ["exports wasi:cli/run@0.3.0", "has what is asynchronous"])
def test_wasi_0_3_takes_the_wheel(rig: Rig, newer: str) -> None:
    """Also where no interface's name tells: then wasmtime does."""
    text = NEWER % "(i32.const 0)"
    with pytest.raises(UnsupportedFeature) as refused:
        rig.precompile(text if "0.3" in newer else text.replace("@0.3.0", "@0.2.6"))
    assert str(refused.value).startswith(f"the component {newer}, which is WASI 0.3: ")
    assert "Install shimd-wasmtime-native on the node (make wasmtime-native)" in str(refused.value)
