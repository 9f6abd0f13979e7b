"""The tests of :mod:`shimd.shim`'s contract: ``pytest --shimd-engine=NAME``, and each of shimd's own in its suite."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shimd.engines.registry import engine_names, engine_reference, lacking, load_engine
from shimd.shim import (
    BrokenArtifact,
    InvalidModule,
    Invocation,
    Preopen,
    RunsApplications,
    UnsupportedFeature,
)
from shimd.testing.rig import Rig, make_rig, runs_without_python

WASI = "wasi_snapshot_preview1"
EXIT = f"""(module (import "{WASI}" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)
  (func (export "_start") (call $exit (i32.const %d))))"""
RETURNS = '(module (memory (export "memory") 1) (func (export "_start")))'
TRAPS = """(module (memory (export "memory") 1)
  (func $deep unreachable) (func $middle call $deep) (func (export "_start") call $middle))"""
SPINS = '(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))'
#: Writes all of stdin to stdout.
CAT = f"""(module
  (import "{WASI}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (loop $more
      (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 60000))
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (i32.store (i32.const 4) (i32.load (i32.const 8)))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
      (br_if $more (i32.load (i32.const 8))))))"""


def dump(kind: str) -> str:
    """Returns a guest that writes what ``args_get`` or ``environ_get`` gives, NUL-terminated strings, to stdout."""
    return f"""(module
  (import "{WASI}" "{kind}_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "{WASI}" "{kind}_get" (func $get (param i32 i32) (result i32)))
  (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $sizes (i32.const 0) (i32.const 20)))
    (drop (call $get (i32.const 1000) (i32.const 8000)))
    (i32.store (i32.const 16) (i32.const 8000))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))))"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine_name" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--shimd-engine", None)
        parametrize(metafunc, [chosen] if chosen else _of_modules())


def parametrize(metafunc: pytest.Metafunc, names: list[str]) -> None:
    """Have a test run with each of the engines; one that runs programs, with each way to make their workers."""
    if "way" in metafunc.fixturenames:
        ways = [(name, way) for name in names for way in WAYS if way == WAYS[0] or runs_without_python(name)]
        metafunc.parametrize(("engine_name", "way"), ways)
    else:
        metafunc.parametrize("engine_name", names, scope="session")


def _of_modules() -> list[str]:
    """Returns all engines that can run here, but those that run applications of several modules."""
    return [
        name
        for name in engine_names()
        if not lacking(name) and not isinstance(load_engine(engine_reference(name)), RunsApplications)
    ]


#: How a worker may be made.
WAYS = ("with Python", "without Python")


@pytest.fixture
def way() -> str:
    """Make workers with an interpreter, where a test is not parametrized with each way."""
    return WAYS[0]


@pytest.fixture
def rig(engine_name: str, way: str, tmp_path: Path) -> Rig:
    """Returns the engine, with an empty directory for its artefacts."""
    directory = tmp_path / "artifacts"
    directory.mkdir()
    return make_rig(engine_name, directory, python=way == WAYS[0])


@pytest.mark.parametrize("code", [0, 1, 42, 125, 126, 127, 128, 137, 200, 255])
def test_exit_codes(rig: Rig, code: int) -> None:
    assert rig.run(EXIT % code).code == code


def test_return_from_start_is_success(rig: Rig) -> None:
    assert rig.run(RETURNS).code == 0


def test_traps_tell_where(rig: Rig) -> None:
    done = rig.run(TRAPS)
    assert done.code == 134
    assert "trap" in done.err or "unreachable" in done.err


def test_arguments(rig: Rig) -> None:
    done = rig.run(dump("args"), Invocation(["app", "one", "", "zwei drei", "ü"]))
    assert done.out.split("\0")[1:] == ["one", "", "zwei drei", "ü", ""]
    assert done.out.startswith("app\0")


def test_environment(rig: Rig) -> None:
    done = rig.run(dump("environ"), Invocation(["app"], env={"A": "1", "EMPTY": "", "B": "x=y"}))
    assert {"A=1", "EMPTY=", "B=x=y"} <= set(done.out.split("\0"))
    assert not any(name.startswith(("HOME=", "TOKIO", "VIRTUAL_ENV")) for name in done.out.split("\0"))


def test_standard_streams(rig: Rig) -> None:
    text = b"line\n" * 5000
    assert rig.run(CAT, stdin=text).out == text.decode()


@pytest.mark.parametrize("wasm", [b"", b"\0asm", b"\0asm\x01\0\0\0\x01", b"\x7fELF", b"no wasm at all"])
def test_invalid_modules(rig: Rig, wasm: bytes) -> None:
    with pytest.raises(InvalidModule, match=r"not valid WebAssembly: .+") as caught:
        rig.precompile(wasm)
    assert "\n" not in str(caught.value)


def test_a_function_that_does_not_exist(rig: Rig) -> None:
    with pytest.raises((InvalidModule, UnsupportedFeature), match="nope"):
        rig.check(rig.precompile(RETURNS), Invocation(["app"], entry="nope"))


def test_a_signal_ends_a_guest_that_spins(rig: Rig) -> None:
    child = rig.start(rig.precompile(SPINS), Invocation(["app"]))
    os.kill(child.pid, signal.SIGTERM)
    # Process 1 of a pid namespace would be spared the default action: then a handler does the same.
    assert child.end().code in (-signal.SIGTERM, 128 + signal.SIGTERM)


def test_an_artefact_that_is_not_whole(rig: Rig) -> None:
    artifact = rig.precompile(RETURNS)
    files = [path for path in (artifact, *artifact.rglob("*")) if path.is_file()]
    for path in files:
        os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(BrokenArtifact, match="does not load"):
        rig.check(artifact, Invocation(["app"]))


def test_warming_starts_no_thread(engine_name: str) -> None:
    """A fork takes only the forking thread along."""
    program = f"""
import os
from shimd.engines.registry import load_engine, engine_reference
load_engine(engine_reference({engine_name!r})).warm()
print(len(os.listdir("/proc/self/task")))"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_telling_the_version_imports_no_engine(engine_name: str) -> None:
    """The supervisor asks for the version, and never runs anything: its memory is to stay small."""
    program = f"""
import sys
from shimd.engines.registry import engine_version
print(engine_version({engine_name!r}))
heavy = {{"numpy", "wasmtime", "wasmer_sdk", "pywasm"}} & set(sys.modules)
assert not heavy, heavy
assert "libwasmedge" not in open("/proc/self/maps").read()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    version = done.stdout.strip()
    assert version and all(character.isalnum() or character in ".-_+" for character in version)


def test_a_read_only_file_is_read(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/note").write_text("a note\n")
    done = rig.run(READ, Invocation(["app"], preopens=[Preopen(str(tmp_path / "in"), "/in", True)]))
    assert done.out == "a note\n", done.err


#: Opens "note" in the first preopen that has it (3 or 4), and writes it to stdout.
READ = f"""(module
  (import "{WASI}" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "{WASI}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 64) "note") (data (i32.const 80) "in/note")
  (func $try (param $fd i32) (param $name i32) (param $length i32) (result i32)
    (call $open (local.get $fd) (i32.const 0) (local.get $name) (local.get $length) (i32.const 0) (i64.const 2)
      (i64.const 2) (i32.const 0) (i32.const 0)))
  (func (export "_start")
    (if (call $try (i32.const 3) (i32.const 64) (i32.const 4))
      (then (if (call $try (i32.const 4) (i32.const 64) (i32.const 4))
        (then (if (call $try (i32.const 3) (i32.const 80) (i32.const 7)) (then
          (drop (call $try (i32.const 4) (i32.const 80) (i32.const 7)))))))))
    (i32.store (i32.const 16) (i32.const 1000)) (i32.store (i32.const 20) (i32.const 1000))
    (drop (call $read (i32.load (i32.const 0)) (i32.const 16) (i32.const 1) (i32.const 24)))
    (i32.store (i32.const 20) (i32.load (i32.const 24)))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 28)))))"""
