"""What wasmtime's native host gives that the one from PyPI does not, and how what they compile is kept apart."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from shimd.engine import Invocation, UnsupportedFeature
from shimd.engines.registry import engine_family, engine_version
from shimd.testing.contract import WASI, WAYS
from shimd.testing.rig import Rig
from tests.wasmtimes import native_only

pytestmark = native_only

#: A command of WASI 0.3: an export that is lifted asynchronously, and says its result by a call.
NEWER = """(component
  (core func $say (canon task.return (result (result))))
  (core module $m
    (import "" "say" (func $say (param i32)))
    (func (export "run") (result i32) %s)
    (func (export "more") (param i32 i32 i32) (result i32) unreachable))
  (core instance $i (instantiate $m (with "" (instance (export "say" (func $say))))))
  (func $run async (result (result)) (canon lift (core func $i "run") async (callback (core func $i "more"))))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.3.0" (instance $command)))"""
#: One of WASI 0.2 that exits with a code.
EXITS = """(component
  (import "wasi:cli/exit@0.2.6" (instance $exit (export "exit-with-code" (func (param "status-code" u8)))))
  (core func $exit (canon lower (func $exit "exit-with-code")))
  (core module $m
    (import "" "exit" (func $exit (param i32)))
    (func (export "run") (result i32) (call $exit (i32.const 77)) (i32.const 0)))
  (core instance $i (instantiate $m (with "" (instance (export "exit" (func $exit))))))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.6" (instance $command)))"""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine_name() -> str:
    return "wasmtime"


@pytest.mark.parametrize(
    ("does", "code"), [("(call $say (i32.const 0)) (i32.const 0)", 0), ("(call $say (i32.const 1)) (i32.const 0)", 1)]
)
def test_a_command_of_wasi_0_3(rig: Rig, does: str, code: int) -> None:
    done = rig.run(NEWER % does)
    assert done.code == code, done.err


def test_one_that_traps(rig: Rig) -> None:
    done = rig.run(NEWER % "unreachable")
    assert done.code == 134 and "unreachable" in done.err


def test_an_exit_code_of_a_component(rig: Rig) -> None:
    assert rig.run(EXITS).code == 77


def test_an_interface_that_nobody_provides(rig: Rig) -> None:
    text = (NEWER % "(i32.const 0)").replace(
        "(component", '(component (import "acme:rockets/launch@1.0.0" (instance (export "go" (func))))', 1
    )
    with pytest.raises(UnsupportedFeature, match=r"imports acme:rockets/launch@1\.0\.0, which is not provided"):
        rig.check(rig.precompile(text), Invocation(["app"]))


#: Accepts a connection, and writes "hello" to it; exits with what fails.
ACCEPTS = f"""(module
  (import "{WASI}" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
  (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "{WASI}" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1) (data (i32.const 0) "\\20\\00\\00\\00\\05\\00\\00\\00") (data (i32.const 32) "hello")
  (func (export "_start") (local $failed i32)
    (local.set $failed (call $accept (i32.const 3) (i32.const 0) (i32.const 16)))
    (if (local.get $failed) (then (call $exit (local.get $failed))))
    (call $exit (call $write (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 20)))))"""


@pytest.mark.parametrize("way", WAYS[:1])
def test_a_socket_that_a_module_is_given(rig: Rig) -> None:
    """All that is done with them: tests/e2e/test_sockets.py."""
    artifact = rig.precompile(ACCEPTS)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        assert rig.start(artifact, Invocation(["app"], listening=[listener.fileno()])).end().code == 0
        assert client.recv(10) == b"hello"
    assert rig.start(artifact, Invocation(["app"])).end().code == 8, "EBADF"


#: Compiles its stdin, and says whether the other host was there before and after.
COMPILES = """
import pathlib, sys
from shimd.engines.wasmtime_native import NativeWasmtime
engine = NativeWasmtime()
engine.load_compiler(text=False)
loaded = "wasmtime" in sys.modules
engine.precompile(sys.stdin.buffer.read(), pathlib.Path(sys.argv[1]))
print(loaded, "wasmtime" in sys.modules)
"""


#: One that accepts sockets is run here, a component's core by the other.
ACCEPTING = f"""(module (import "{WASI}" "sock_accept" (func (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1) (func (export "_start")))"""
CORE = """(module (import "others" "f" (func)) (memory (export "memory") 1)
  (func (export "_start"))
  (func (export "canonical_abi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0)))"""


@pytest.mark.parametrize(("module", "needed"), [(ACCEPTING, False), (CORE, True)], ids=["accepting", "core"])
def test_the_others_library_is_loaded_where_it_compiles(tmp_path: Path, module: str, needed: bool) -> None:
    (tmp_path / "app.wasm").write_bytes(bytes(wasmtime.wat2wasm(module)))
    with (tmp_path / "app.wasm").open("rb") as program:
        command = [sys.executable, "-c", COMPILES, str(tmp_path / "made")]
        done = subprocess.run(command, stdin=program, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [str(needed)] * 2, done.stderr


def test_what_they_compile_is_kept_apart() -> None:
    assert engine_family("spin") == "wasmtime"
    assert engine_family("spin-py") == engine_family("wasi-http") == "wasmtime-py"
    assert engine_version("wasmtime") != engine_version("wasmtime-py")
