"""WasmEdge beyond the contract; and what is told where its library is missing."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shimd.engine import InvalidModule, Invocation, MissingRuntime, Preopen, UnsupportedFeature
from shimd.engines import libwasmedge, registry, wasmedge
from shimd.engines.core import WASI, from_text
from shimd.errors import FailedPrecondition, InvalidArgument
from shimd.formats import outline
from shimd.formats.magic import NativeProgram, reject_native
from shimd.node.doctor import examine
from shimd.testing.contract import EXIT, RETURNS
from shimd.testing.rig import ChildProcess, Rig, make_rig

NOWHERE = "/nowhere/libwasmedge.so.0"
HEADER = b"\0asm\1\0\0\0"


def section(name: bytes, content: bytes = b"") -> bytes:
    body = bytes([len(name)]) + name + content
    return b"\0" + bytes([len(body)]) + body


def test_machine_code_is_left_out() -> None:
    kept = section(b"name", b"1"), section(b"wasmedge_", b"2")
    assert wasmedge.plain(HEADER + kept[0] + section(b"wasmedge", b"code") + kept[1]) == HEADER + kept[0] + kept[1]


@pytest.mark.parametrize(
    "rest", [b"\0", b"\0\x05\x01", b"\0\x80\x80\x80\x80\x80\x01", section(b"wasmedge", b"code")[:-1]]
)
def test_a_section_that_is_not_whole(rest: bytes) -> None:
    with pytest.raises(InvalidModule, match="not valid WebAssembly: a section is not whole"):
        wasmedge.plain(HEADER + rest)


def test_a_component_is_refused() -> None:
    with pytest.raises(UnsupportedFeature, match=r"is a component: use the wasmtime engine"):
        wasmedge.plain(b"\0asm\x0d\0\1\0")


@pytest.fixture
def forgetful() -> Iterator[None]:
    """What is known of libraries is asked anew."""
    caches = (registry.engine_version, wasmedge._library_version, libwasmedge._library)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.fixture(params=[NOWHERE, "libc.so.6"])
def no_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, forgetful: None) -> str:
    """A name that there is no library under, or not WasmEdge's."""
    name: str = request.param
    monkeypatch.setenv("SHIMD_WASMEDGE_LIBRARY", name)
    return name


def test_a_missing_library_is_named_with_its_remedy(no_library: str) -> None:
    with pytest.raises(FailedPrecondition, match=r"engine wasmedge cannot run on this node: .*; install") as caught:
        registry.engine_version("wasmedge")
    assert no_library in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(registry.lacking("wasmedge"), MissingRuntime)


def test_a_fork_server_without_the_library_serves_native_containers(no_library: str) -> None:
    wasmedge.WasmEdgeEngine().warm()


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_a_library_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgetful: None) -> None:
    source, library = tmp_path / "old.c", tmp_path / "libold.so"
    source.write_text('const char *WasmEdge_VersionGet(void) { return "0.13.5"; }')
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setenv("SHIMD_WASMEDGE_LIBRARY", str(library))
    with pytest.raises(
        FailedPrecondition, match=r"libold\.so is of version 0\.13\.5; install libwasmedge0 of Debian 13"
    ):
        registry.engine_version("wasmedge")


def test_doctor_warns_of_a_missing_library(no_library: str) -> None:
    found = {finding.subject: finding for finding in examine()}["engine wasmedge"]
    assert found.level == "warning"
    assert no_library in found.found
    assert found.remedy.startswith("install libwasmedge0")


needs_the_library = pytest.mark.skipif(
    registry.lacking("wasmedge") is not None, reason="libwasmedge is in Debian 13 and later: e2e/test_trixie.py"
)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    (tmp_path / "artifacts").mkdir()
    return make_rig("wasmedge", tmp_path / "artifacts")


@needs_the_library
def test_a_library_that_is_installed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgetful: None) -> None:
    """The fork server that started without it goes on to be used."""
    engine = registry.load_engine(registry.engine_reference("wasmedge"))
    monkeypatch.setenv("SHIMD_WASMEDGE_LIBRARY", NOWHERE)
    engine.warm()
    monkeypatch.delenv("SHIMD_WASMEDGE_LIBRARY")
    assert Rig(engine, tmp_path).run(EXIT % 5).code == 5


@needs_the_library
def test_an_import_of_another_type_is_the_engines_error(rig: Rig) -> None:
    wat = f'(module (import "{WASI}" "fd_close" (func)) (memory (export "memory") 1) (func (export "_start")))'
    done = rig.run(wat)
    assert "EngineError: the module does not link: incompatible import type" in done.err


@needs_the_library
def test_a_start_function(rig: Rig) -> None:
    """It may trap, or end the app before its entry is called."""
    wat = f"""(module (import "{WASI}" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)
      (func $begin %s) (start $begin) (func (export "_start") unreachable))"""
    assert rig.run(wat % "(call $exit (i32.const 7))").code == 7
    assert rig.run(wat % "unreachable").code == 134


@needs_the_library
def test_sockets_take_a_network(rig: Rig) -> None:
    wat = f"""(module (import "{WASI}" "sock_open" (func (param i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (func (export "_start")))"""
    artifact = rig.precompile(wat)
    with pytest.raises(UnsupportedFeature, match=r"opens sockets.* shimd run --network"):
        rig.check(artifact, Invocation(["app"]))
    assert rig.start(artifact, Invocation(["app"], network=True)).end().code == 0


@needs_the_library
def test_a_colon_in_the_name_of_a_directory(rig: Rig) -> None:
    with pytest.raises(UnsupportedFeature, match="a colon in its name: /a:b"):
        rig.check(rig.precompile(RETURNS), Invocation(["app"], preopens=[Preopen("/tmp", "/a:b")]))


#: Opens the directory "below" and makes another one in there; its error is the exit code.
MAKES = f"""(module
  (import "{WASI}" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "{WASI}" "path_create_directory" (func $make (param i32 i32 i32) (result i32)))
  (import "{WASI}" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1) (data (i32.const 64) "below") (data (i32.const 80) "new")
  (func (export "_start")
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 5) (i32.const 2) (i64.const 0x200)
      (i64.const 0) (i32.const 0) (i32.const 0)) (then (call $exit (i32.const 99))))
    (call $exit (call $make (i32.load (i32.const 0)) (i32.const 80) (i32.const 3)))))"""


@needs_the_library
@pytest.mark.parametrize(("read_only", "code"), [(False, 0), (True, 69)])
def test_nothing_below_a_read_only_directory_is_written(rig: Rig, tmp_path: Path, read_only: bool, code: int) -> None:
    """WasmEdge's own flag is for the directory itself; 69 is EROFS."""
    (tmp_path / "top/below").mkdir(parents=True)
    done = rig.run(MAKES, Invocation(["app"], preopens=[Preopen(str(tmp_path / "top"), "/top", read_only)]))
    assert done.code == code
    assert (tmp_path / "top/below/new").exists() != read_only


def in_a_child(action: Callable[[], int]) -> int:
    return ChildProcess(action).end().code


#: WasmEdge_CompilerOutputFormat: a shared object, and "universal" WebAssembly.
NATIVE, UNIVERSAL = 0, 1


def with_machine_code(module: str, file: Path, format: int = UNIVERSAL) -> bytes:
    """The module as ``wasmedge compile`` writes it: with a section "wasmedge" after the others."""

    def act() -> int:
        configuration = libwasmedge.configuration()
        libwasmedge._library().ConfigureCompilerSetOutputFormat(configuration, format)
        libwasmedge.compile(configuration, from_text(module.encode()), str(file))
        return 0

    assert in_a_child(act) == 0
    return file.read_bytes()


def run_by_the_library(file: Path) -> int:
    def act() -> int:
        configuration, wasi = libwasmedge.configuration(), libwasmedge.wasi()
        libwasmedge.Instance(configuration, libwasmedge.load(configuration, str(file)), [wasi]).call("_start")
        return libwasmedge.exit_code(wasi)

    return in_a_child(act)


@needs_the_library
def test_machine_code_of_an_image_is_never_run(rig: Rig, tmp_path: Path) -> None:
    """The module says 7, the machine code in it 9; the library by itself runs the latter."""
    seven, nine = (from_text((EXIT % code).encode()) for code in (7, 9))
    forged = tmp_path / "forged.wasm"
    forged.write_bytes(seven + with_machine_code(EXIT % 9, tmp_path / "nine.wasm").removeprefix(nine))
    assert run_by_the_library(forged) == 9
    assert rig.run(forged.read_bytes()).code == 7


@needs_the_library
def test_what_the_library_has_compiled_is_known_before_it_is_compiled(tmp_path: Path) -> None:
    """A module with machine code is that module by its outline; a shared object is none, nor is it the node's."""
    for format, name in ((UNIVERSAL, "app.wasm"), (NATIVE, "app.so")):
        with_machine_code(EXIT % 5, tmp_path / name, format)
    with open(tmp_path / "app.wasm", "rb") as file:
        found = outline.read(file.fileno())
    assert found is not None
    assert (found.imports, found.sections[-1]) == ([(WASI, "proc_exit")], "wasmedge")
    wasmedge.WasmEdgeEngine().foresee(found, "wasmedge")
    with open(tmp_path / "app.so", "rb") as file:
        assert outline.read(file.fileno()) is None
        with pytest.raises(InvalidArgument, match="machine code that WasmEdge has compiled ahead of time") as refused:
            reject_native("/app.so", file.fileno())
    assert not isinstance(refused.value, NativeProgram)
