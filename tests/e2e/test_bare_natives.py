"""The wheels of ``native/`` by Debian's own toolchain, in clones on bare machines (``make test-bare-natives``)."""

import os
from collections.abc import Iterator

import pytest

from tests.components import rust
from tests.components.build import newer
from tests.e2e.bare import SUITES, Machine, machine_of
from tests.e2e.http_app import free_port
from tests.unit.engines.programs import binary
from tests.unit.engines.test_wasmtime_native import EXITS, NEWER

pytestmark = [
    pytest.mark.skipif("SHIMD_TEST_BARE_NATIVES" not in os.environ, reason="it takes an hour: make test-bare-natives"),
    pytest.mark.timeout(7200),
]
#: Asks a server, as soon as it listens.
_ASKS = """
import sys, time, urllib.error, urllib.request
ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
for _ in range(300):
    try:
        print(end=ask(sys.argv[1]).read().decode())
        break
    except urllib.error.URLError:
        time.sleep(0.2)
"""
_SERVES = """
.venv/bin/shimd run --network "--env=WASMTIME_HTTP_PROXY_SOCKET_ADDR=$2" "$1" & app=$!
.venv/bin/python -c "$3" "http://$2/"; kill "$app"; wait "$app"
"""


@pytest.fixture(scope="module")
def bookworm() -> Iterator[Machine]:
    """Whose rustc-web is of before the security updates were a source."""
    with machine_of("bookworm") as machine:
        machine.clone("/root/shimd")
        machine.must("apt-get update -q && apt-get install -y -q --no-install-recommends rustc-web cargo-web")
        machine.with_security_updates()
        yield machine


@pytest.fixture(scope="module")
def trixie() -> Iterator[Machine]:
    """Where shimd is in ``.venv`` already, as it comes to be without a compiler."""
    with machine_of("trixie") as machine:
        machine.clone("/root/shimd")
        machine.must("cd shimd && make demo")
        yield machine


@pytest.fixture(params=SUITES)
def machine(request: pytest.FixtureRequest) -> Machine:
    found: Machine = request.getfixturevalue(request.param)
    return found


def made(machine: Machine, target: str) -> None:
    printed = machine.must('cd shimd && make "$1" && rustc --version && .venv/bin/python -m pip list', target)
    assert "\nrustc 1." in printed and f"\nshimd-{target} " in printed, printed


def run(machine: Machine, *words: str) -> tuple[int, str]:
    done = machine.run('exec shimd/.venv/bin/shimd run "$@"', *words)
    return done.returncode, done.stdout


def served(machine: Machine, program: str) -> str:
    """What the server answers, and whatever it says."""
    return machine.must(f"cd shimd; {_SERVES}", program, f"127.0.0.1:{free_port()}", _ASKS)


def test_wasmtime(machine: Machine, programs: tuple[bytes, bytes]) -> None:
    made(machine, "wasmtime-native")
    module = machine.put("module.wasm", programs[1])
    assert run(machine, module) == (0, "hello from app\n")
    assert run(machine, module, "exit", "7") == (7, "")
    component = machine.put("component.wasm", rust.component("command").read_bytes())
    machine.put("from", b"the file")
    assert run(machine, "--dir=/srv", component, "copy", "/srv/from", "/srv/to") == (0, "8\n")
    assert machine.must("cat /srv/to") == "the file"
    assert run(machine, machine.put("exits.wasm", binary(EXITS))) == (77, ""), "the portable host's would be 1"
    assert run(machine, machine.put("newer.wasm", binary(NEWER % "(call $say (i32.const 0)) (i32.const 0)"))) == (0, "")
    assert served(machine, machine.put("server.wasm", newer().read_bytes())) == "hello from WASI 0.3\n"


def test_wasmer(machine: Machine) -> None:
    """The binding from PyPI has no directories."""
    made(machine, "wasmer-native")
    program = machine.put("command.wasm", rust.module("command").read_bytes())
    machine.put("from", b"the file")
    words = ("--engine=wasmer", "--dir=/srv::/files", program, "copy", "/files/from", "/files/beside")
    assert run(machine, *words) == (0, "8\n")
    assert machine.must("cat /srv/beside") == "the file"


def test_componentize(machine: Machine) -> None:
    """A core module that serves HTTP."""
    made(machine, "componentize-native")
    assert served(machine, machine.put("core.wasm", rust.module("server").read_bytes())) == "hello from Rust\n"
