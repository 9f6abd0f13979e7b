"""Interfaces beside WASI's worlds, of wasmtime's native host."""

import pytest

from shimd.engine import Invocation, UnsupportedFeature
from shimd.engines.wasmtime import PORTABLE
from shimd.testing.contract import parametrize
from shimd.testing.rig import Rig
from tests.wasmtimes import native_only


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc, [PORTABLE] if "portable" in metafunc.function.__name__ else ["wasmtime"])


LIBC = """(core module $libc (memory (export "memory") 1) (global $free (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.get $free)
      (global.set $free (i32.add (global.get $free) (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8))))))
  (core instance $libc (instantiate $libc))"""
OPTIONS = '(memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))'
LOGGING = """(import "%s" (instance $logging
    (type $l (enum "trace" "debug" "info" "warn" "error" "critical")) (export "level" (type $level (eq $l)))
    (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))"""
DRAFT = "wasi:logging/logging@0.1.0-draft"


def command(imports: str, functions: dict[str, tuple[str, str]], does: str) -> str:
    """A command of WASI 0.2, whose core has ``$log``, and data: NAME at 100, its context, "app", at 120.

    :param functions: of the core's imports: their types, and what they are in the component
    """
    functions = {**functions, "log": ("(param i32 i32 i32 i32 i32)", '(func $logging "log")')}
    lowered = [f"(core func ${name} (canon lower {of} {OPTIONS}))" for name, (_type, of) in functions.items()]
    imported = [f'(import "" "{name}" (func ${name} {kind}))' for name, (kind, _of) in functions.items()]
    given = " ".join(f'(export "{name}" (func ${name}))' for name in functions)
    return f"""(component {imports} {LIBC} {" ".join(lowered)}
      (core module $m (import "libc" "memory" (memory 1)) {" ".join(imported)}
        (data (i32.const 100) "GREETING") (data (i32.const 120) "app")
        (func (export "run") (result i32) {does} (i32.const 0)))
      (core instance $i (instantiate $m (with "libc" (instance $libc)) (with "" (instance {given}))))
      (func $run (result (result)) (canon lift (core func $i "run")))
      (instance $command (export "run" (func $run)))
      (export "wasi:cli/run@0.2.6" (instance $command)))"""


#: Logs what is found, where a ``result<option<...>, _>`` with pointer and length is at 16.
FOUND = """(if (i32.or (i32.load8_u (i32.const 16)) (i32.eqz (i32.load8_u (i32.const 20))))
    (then (return (i32.const 1))))
  (call $log (i32.const 2) (i32.const 120) (i32.const 3) (i32.load (i32.const 24)) (i32.load (i32.const 28)))"""


def config(version: str) -> str:
    store = f"""(import "wasi:config/store@{version}" (instance $config
      (type $e (variant (case "upstream" string) (case "io" string))) (export "error" (type $error (eq $e)))
      (export "get" (func (param "key" string) (result (result (option string) (error $error)))))
      (export "get-all" (func (result (result (list (tuple string string)) (error $error)))))))"""
    functions = {
        "get": ("(param i32 i32 i32)", '(func $config "get")'),
        "all": ("(param i32)", '(func $config "get-all")'),
    }
    does = f"""(call $get (i32.const 100) (i32.const 8) (i32.const 16)) {FOUND} (call $all (i32.const 16))
      (if (i32.or (i32.load8_u (i32.const 16)) (i32.eqz (i32.load (i32.const 24)))) (then unreachable))"""
    return command(store + LOGGING % DRAFT, functions, does)


KEYVALUE = """(import "wasi:keyvalue/store@0.2.0-draft" (instance $store
    (export "bucket" (type $bucket (sub resource)))
    (type $e (variant (case "no-such-store") (case "access-denied") (case "other" string)))
    (export "error" (type $error (eq $e)))
    (export "open" (func (param "identifier" string) (result (result (own $bucket) (error $error)))))
    (export "[method]bucket.set" (func (param "self" (borrow $bucket)) (param "key" string) (param "value" (list u8))
      (result (result (error $error)))))
    (export "[method]bucket.get" (func (param "self" (borrow $bucket)) (param "key" string)
      (result (result (option (list u8)) (error $error)))))))"""


@native_only
@pytest.mark.parametrize("version", ["0.2.0-rc.1", "0.2.0-draft-2024-09-27"])
def test_the_environment_is_the_configuration(rig: Rig, version: str) -> None:
    artifact = rig.precompile(config(version))
    done = rig.start(artifact, Invocation(["app"], env={"GREETING": "hello"})).end()
    assert (done.code, done.err) == (0, "INFO app: hello\n")
    assert rig.start(artifact, Invocation(["app"])).end().code == 1, "it is not there"


@native_only
@pytest.mark.parametrize("name", [DRAFT, "wasi:logging/logging"])
def test_logging(rig: Rig, name: str) -> None:
    says = """(call $log (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 120) (i32.const 3))
      (call $log (i32.const 5) (i32.const 120) (i32.const 3) (i32.const 100) (i32.const 8))"""
    done = rig.run(command(LOGGING % name, {}, says))
    assert (done.code, done.out, done.err) == (0, "", "TRACE app\nCRITICAL app: GREETING\n")


@native_only
def test_a_bucket_in_memory(rig: Rig) -> None:
    functions = {
        "open": ("(param i32 i32 i32)", '(func $store "open")'),
        "set": ("(param i32 i32 i32 i32 i32 i32)", '(func $store "[method]bucket.set")'),
        "get": ("(param i32 i32 i32 i32)", '(func $store "[method]bucket.get")'),
    }
    does = f"""(call $open (i32.const 0) (i32.const 0) (i32.const 48))
      (call $set (i32.load (i32.const 52)) (i32.const 100) (i32.const 8) (i32.const 120) (i32.const 3) (i32.const 64))
      (if (i32.load8_u (i32.const 64)) (then unreachable))
      (call $get (i32.load (i32.const 52)) (i32.const 100) (i32.const 8) (i32.const 16)) {FOUND}
      (call $open (i32.const 120) (i32.const 3) (i32.const 48))
      (if (i32.ne (i32.load16_u (i32.const 48)) (i32.const 1)) (then unreachable))"""
    done = rig.run(command(KEYVALUE + LOGGING % DRAFT, functions, does))
    assert (done.code, done.err) == (0, "INFO app: app\n")


@native_only
def test_a_version_that_nobody_provides_is_named(rig: Rig) -> None:
    name = "wasi:logging/logging@0.9.0-draft"
    with pytest.raises(UnsupportedFeature, match=f"imports {name}, which is not provided"):
        rig.check(rig.precompile(command(LOGGING % name, {}, "")), Invocation(["app"]))


def test_the_portable_host_names_the_wheel(rig: Rig) -> None:
    said = rf"^the component imports {DRAFT}, which takes shimd-wasmtime-native: .*\(make wasmtime-native\)$"
    with pytest.raises(UnsupportedFeature, match=said):
        rig.check(rig.precompile(command(LOGGING % DRAFT, {}, "")), Invocation(["app"]))
