"""shimd runs wherever it is put: one app of each kind, from a tree and an interpreter in places that get in the way.

Which they are for: a compile worker is nobody, and a worker has the container's root, so that neither sees all that the
supervisor sees. Each program is compiled there, by all ways that compiling can take.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import httpx
import pytest

from shimd.engines import componentize
from tests import wasmer
from tests.components import rust
from tests.e2e import guests, images, leftovers, place, test_rust, test_slight
from tests.e2e.box import Box, Runtime, until
from tests.e2e.containerd import VERSIONS, Containerd, running
from tests.e2e.http_app import answers, free_port
from tests.e2e.test_sockets import SOURCES, compiled
from tests.slight.build import guest

EXITS = """(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)
  (func (export "_start") (call $exit (i32.const 7))))"""
#: A command that imports an interface of sockets: of another engine, and of the component model's text format.
SOCKETS = """(component
  (import "wasi:sockets/tcp-create-socket@0.2.0" (instance))
  (core module $m (func (export "run") (result i32) i32.const 0))
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))"""
IMAGE = "test.invalid/places:1"
HTTP = "--env=WASMTIME_HTTP_PROXY_SOCKET_ADDR={}"
#: Somebody who is not root.
STRANGER = 12345


def closed(top: Path) -> Path:
    """Below a directory that only root may enter, as root's home is."""
    (top / "home").mkdir(mode=0o700)
    return top / "home"


def with_spaces(top: Path) -> Path:
    return top / "a place with spaces"


def linked(top: Path) -> Path:
    """By way of a symbolic link."""
    (top / "real").mkdir()
    (top / "link").symlink_to("real")
    return top / "link/there"


def plain(top: Path) -> Path:
    return top / "there"


#: The directory below which a place is made, and how. A compile worker's /tmp is its own.
PLACES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "closed": ("/var/tmp", closed),
    "tmp": ("/tmp", plain),
    "spaces": ("/var/tmp", with_spaces),
    "link": ("/var/tmp", linked),
    "owned": ("/var/tmp", plain),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return place.wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Iterator[Callable[[str], Path]]:
    """Where the programs of a place are, which is made when it is first asked for. One has the tree itself, as ``make
    demo`` installs it; the others what is built of it."""
    with ExitStack() as stack:

        @cache
        def programs(name: str) -> Path:
            parent, make = PLACES[name]
            top = Path(tempfile.mkdtemp(prefix="shimd-place-", dir=parent))
            stack.callback(shutil.rmtree, top)
            top.chmod(0o755)
            found = place.install(make(top), None if name == "closed" else wheel)
            if name == "owned":
                place.own(top, STRANGER)
            return found

        yield programs


@pytest.fixture(scope="module", params=[*((name, "C") for name in PLACES), ("closed", "Python")], ids=" in ".join)
def elsewhere(request: pytest.FixtureRequest, installed: Callable[[str], Path]) -> Iterator[Containerd]:
    """A containerd for each place; for one of them with workers in Python, too."""
    name, kind = request.param
    environment = {"SHIMD_ZYGOTE": "no"} if kind == "Python" else {}
    with running(VERSIONS[0], place.Elsewhere.using(installed(name), environment)) as containerd:
        yield containerd


@pytest.fixture
def at(elsewhere: Containerd, archive: Path) -> Iterator[Callable[[str], Box]]:
    """Boxes there, by engine, with the standard images."""
    boxes: list[Box] = []

    def make(engine: str) -> Box:
        version = {"spin": "v2"}.get(engine, "v1")
        runtime = Runtime(engine, guests.WASM, "/app.wasm", f"io.containerd.{engine}.{version}")
        boxes.append(box := Box(elsewhere, f"places-{engine}", runtime))
        elsewhere.import_image(archive, box.namespace)
        return box

    yield make
    for box in boxes:
        box.close()
        leftovers.remove_parents(box.namespace)


@pytest.mark.parametrize("engine", ["wasmtime", *wasmer.BINDINGS])
def test_a_command(at: Callable[[str], Box], engine: str, tmp_path: Path) -> None:
    box = at(engine)
    done = box.run("app", "read", "/data/note")
    assert (done.code, done.out, done.err) == (0, "a note\n", "")
    add(box, tmp_path, "/exits.wat", EXITS.encode())
    assert run(box, "/exits.wat") == 7, "which is compiled from text"
    box.detach("sleeper", "sleep", 600)
    assert box.exec("sleeper", "one", "exit", 3).code == 3
    box.kill("sleeper")
    box.wait_status("sleeper", "STOPPED")
    assert box.delete("sleeper") == 137


def add(box: Box, directory: Path, name: str, program: bytes) -> None:
    """An image of one program."""
    contents = images.layer({name: program, "/data/note": b"a note\n"})
    images.save(directory / "one.tar", [images.image(IMAGE, [contents], {"Env": ["PATH=/"]})])
    box.containerd.import_image(directory / "one.tar", box.namespace)


def run(box: Box, program: str, *words: str, flags: tuple[str, ...] = ()) -> int:
    runtime = ("--runtime", box.runtime.type)
    done = box.ctr("run", "--rm", *runtime, *flags, IMAGE, "once", program, *words, check=False)
    assert "imported after" not in done.err, done.err
    return done.code


def test_a_native_container(at: Callable[[str], Box]) -> None:
    box = at("wasmtime")
    assert (
        box.ctr("run", "--rm", "--runtime", box.runtime.type, guests.NATIVE, "native", "/app", "echo", "a").out == "a\n"
    )


def test_a_component(at: Callable[[str], Box], tmp_path: Path) -> None:
    box = at("wasmtime")
    add(box, tmp_path, "/command.wasm", rust.component("command").read_bytes())
    assert run(box, "/command.wasm", "fail") == 1


def test_a_component_that_opens_sockets(at: Callable[[str], Box], tmp_path: Path) -> None:
    box = at("wasmtime")
    add(box, tmp_path, "/sockets.wat", SOCKETS.encode())
    assert run(box, "/sockets.wat") == 0


def test_a_module_that_is_given_sockets(at: Callable[[str], Box], tmp_path: Path) -> None:
    program = compiled(SOURCES / "listening.c", tmp_path).read_bytes()
    serves(at("wasmtime"), tmp_path, program, "hello from WebAssembly!\n", "--annotation=shimd.io/listen=tcp:{}")


def test_a_server(at: Callable[[str], Box], tmp_path: Path) -> None:
    serves(at("wasmtime"), tmp_path, rust.component("server").read_bytes(), "hello from Rust\n", HTTP)


@pytest.mark.skipif(not componentize.version(), reason="native/componentize is built by cargo: run tools/setup")
def test_a_server_that_is_a_core_module(at: Callable[[str], Box], tmp_path: Path) -> None:
    serves(at("wasmtime"), tmp_path, rust.module("server").read_bytes(), "hello from Rust\n", HTTP)


def serves(box: Box, directory: Path, program: bytes, said: str, flag: str) -> None:
    """:param flag: what tells the app the address"""
    add(box, directory, "/server.wasm", program)
    address = f"127.0.0.1:{free_port()}"
    flags = ("--net-host", flag.format(address))
    box.ctr("run", "-d", "--null-io", "--runtime", box.runtime.type, *flags, IMAGE, "server", "/server.wasm")
    until(lambda: answers(address), "the app to listen")
    assert httpx.get(f"http://{address}/", trust_env=False, timeout=30).text == said
    box.kill("server", "SIGTERM")
    box.wait_status("server", "STOPPED")


def test_a_spin_application(at: Callable[[str], Box], tmp_path: Path) -> None:
    test_rust.run_spin(at("spin"), tmp_path, rust.component("spin"))


def test_a_slight_application(at: Callable[[str], Box], tmp_path: Path) -> None:
    text = test_slight.SLIGHTFILE.replace("{secret}", test_slight.SECRET)
    archive = test_slight.image(tmp_path / "slight.tar", text, guest("app"))
    with test_slight.running(at("slight"), archive) as app:
        assert app.value("GET", "/hello") == "hello 1"
        test_slight.check_files(app)
