"""Interfaces that Python objects give to components that run natively: ``docs/shims.md``'s example, and its faults."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.components import rust
from tests.components.build import flows
from tests.e2e import http_app
from tests.e2e.box import Box, Runtime, until
from tests.e2e.containerd import REPOSITORY, Version
from tests.e2e.http_app import App
from tests.e2e.test_stranger import environment, strangers_box  # noqa: F401
from tests.wasmtimes import native_only

pytestmark = native_only
THINGS = Path(__file__).with_name("things")
TRAPPED = 134
IMAGE = "test.invalid/things:1"
#: A command of WASI 0.3 that asks twice at a time, and is answered only when it has. It looks at both answers: ``hello,
#: a``, and an error of six bytes.
ASYNC = """(component
  (import "acme:things/later@1.2.0" (instance $later
    (export "greet" (func async (param "name" string) (result (result string (error string)))))))
  (core module $memory
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.get $next)
      (global.set $next (i32.add (global.get $next) (i32.add (local.get 3) (i32.const 8))))))
  (core instance $m (instantiate $memory))
  (core func $greet (canon lower (func $later "greet") async
    (memory (core memory $m "memory")) (realloc (core func $m "realloc")) string-encoding=utf8))
  (core func $new (canon waitable-set.new))
  (core func $join (canon waitable.join))
  (core func $drop (canon subtask.drop))
  (core func $say (canon task.return (result (result))))
  (core module $main
    (import "" "memory" (memory 1))
    (import "" "greet" (func $greet (param i32 i32 i32) (result i32)))
    (import "" "new" (func $new (result i32)))
    (import "" "join" (func $join (param i32 i32)))
    (import "" "drop" (func $drop (param i32)))
    (import "" "say" (func $say (param i32)))
    (data (i32.const 0) "a")
    (global $set (mut i32) (i32.const 0))
    (global $answers (mut i32) (i32.const 0))
    (func $ask (param $length i32) (param $answer i32)
      (local $status i32)
      (local.set $status (call $greet (i32.const 0) (local.get $length) (local.get $answer)))
      (if (i32.ne (i32.and (local.get $status) (i32.const 15)) (i32.const 1)) (then unreachable))
      (call $join (i32.shr_u (local.get $status) (i32.const 4)) (global.get $set)))
    (func $wait (result i32) (i32.or (i32.const 2) (i32.shl (global.get $set) (i32.const 4))))
    (func (export "run") (result i32)
      (global.set $set (call $new))
      (call $ask (i32.const 1) (i32.const 100))
      (call $ask (i32.const 0) (i32.const 200))
      (call $wait))
    (func (export "more") (param $event i32) (param $of i32) (param $state i32) (result i32)
      (if (i32.ne (local.get $event) (i32.const 1)) (then unreachable))
      (if (i32.ne (local.get $state) (i32.const 2)) (then (return (call $wait))))
      (call $drop (local.get $of))
      (global.set $answers (i32.add (global.get $answers) (i32.const 1)))
      (if (i32.lt_u (global.get $answers) (i32.const 2)) (then (return (call $wait))))
      (call $say (i32.or
        (i32.or (i32.load8_u (i32.const 100)) (i32.ne (i32.load (i32.const 108)) (i32.const 8)))
        (i32.or (i32.eqz (i32.load8_u (i32.const 200))) (i32.ne (i32.load (i32.const 208)) (i32.const 6)))))
      (i32.const 0)))
  (core instance $i (instantiate $main (with "" (instance
    (export "memory" (memory $m "memory")) (export "greet" (func $greet)) (export "new" (func $new))
    (export "join" (func $join)) (export "drop" (func $drop)) (export "say" (func $say))))))
  (func $run async (result (result)) (canon lift (core func $i "run") async (callback (core func $i "more"))))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.3.0" (instance $command)))"""
#: One that imports an interface whose resource is of another, which is not bridged.
FOREIGN = """(component
  (import "wasi:io/poll@0.2.6" (instance $poll (export "pollable" (type (sub resource)))))
  (alias export $poll "pollable" (type $pollable))
  (import "acme:things/shelf@1.2.0" (instance
    (alias outer 1 $pollable (type $outer)) (export "pollable" (type (eq $outer)))))
  (core module $m (func (export "run") (result i32) (i32.const 0)))
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.6" (instance $command)))"""


def test_the_example_is_the_pages() -> None:
    examples = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/shims.md").read_text(), re.DOTALL)
    assert (THINGS / "shimd_things/__init__.py").read_text() in examples


@pytest.fixture(scope="module")
def launchers(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Where the engines are installed."""
    directory = tmp_path_factory.mktemp("things")
    shutil.copytree(THINGS, directory, dirs_exist_ok=True)
    install = [str(environment / "bin/python"), "-m", "pip", "install", "--quiet", "--no-deps", "."]
    subprocess.run(install, check=True, cwd=directory)
    return environment / "bin"


def run(
    launchers: Path, program: Path, *arguments: object, engine: str = "more-things", flags: tuple[str, ...] = ()
) -> "subprocess.CompletedProcess[str]":
    command = [str(launchers / "shimd"), "run", "--engine", engine, *flags, str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def command() -> Path:
    return rust.component("things-command")


def test_the_example(launchers: Path, command: Path) -> None:
    done = run(launchers, command, "greet", "you", engine="things")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello, you\n", "")
    done = run(launchers, command, "values", engine="things")
    assert done.returncode == TRAPPED
    assert "acme:things/shelf@1.2.0#same: LookupError: it is not provided" in done.stderr


def test_its_types_are_checked(environment: Path, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("mypy")
    shutil.copytree(THINGS, tmp_path, dirs_exist_ok=True)
    (tmp_path / "typed.py").write_text(
        "from shimd.shim import Engine\nfrom shimd_things import ThingsEngine\n"
        "from shimd.engines.wasmtime_native import NativeProgram\none: Engine[NativeProgram] = ThingsEngine()\n"
    )
    command = [str(environment / "bin/python"), "-m", "mypy", "--strict", f"--cache-dir={tmp_path}/cache"]
    command += ["typed.py", "shimd_things"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("what", "out"), [("values", "the same\n"), ("books", "lost 2\n")])
def test_values_and_resources(launchers: Path, command: Path, what: str, out: str) -> None:
    done = run(launchers, command, what)
    assert (done.returncode, done.stdout, done.stderr) == (0, out, "")


@pytest.mark.parametrize(
    ("what", "why"),
    [("fail", "fail: RuntimeError: the shelf is gone"), ("end", "end: the process that provides it has ended")],
)
def test_what_fails_there_ends_the_guest(launchers: Path, command: Path, what: str, why: str) -> None:
    done = run(launchers, command, what)
    assert done.returncode == TRAPPED
    assert f"acme:things/shelf@1.2.0#{why}" in done.stderr


@pytest.mark.parametrize(
    ("title", "why"),
    [
        ("number", "a whole number is there where an object is wanted"),
        ("nothing", "nothing is there where an object is wanted"),
        ("text", "a text is there where an object is wanted"),
        ("case", "there is no case lent"),
        ("payload", "a whole number is there where a text is wanted"),
        ("set", "a list is there where a case is wanted"),
    ],
)
def test_an_answer_of_another_type(launchers: Path, command: Path, title: str, why: str) -> None:
    done = run(launchers, command, "take", title)
    assert done.returncode == TRAPPED
    assert f"acme:things/shelf@1.2.0#take has answered wrongly: {why}" in done.stderr


def test_how_long_a_list_may_be(launchers: Path, command: Path) -> None:
    """Both ways: wasmtime makes a value of each byte that a guest passes, up to 128 MiB of them."""
    assert run(launchers, command, "blobs", 1, 3 << 20).returncode == 0
    done = run(launchers, command, "blobs", 1, 4 << 20)
    assert done.returncode == TRAPPED
    assert "too much data is being copied between the host and the guest" in done.stderr


def test_async_functions_are_called_several_at_a_time(launchers: Path, tmp_path: Path) -> None:
    (tmp_path / "app.wat").write_text(ASYNC)
    done = run(launchers, tmp_path / "app.wat")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_resource_of_an_interface_that_is_not_bridged(launchers: Path, tmp_path: Path) -> None:
    (tmp_path / "app.wat").write_text(FOREIGN)
    done = run(launchers, tmp_path / "app.wat")
    assert done.returncode != 0
    assert "acme:things/shelf@1.2.0 has a resource of wasi:io/poll@0.2.6, which is not bridged" in done.stderr


def test_redis_as_spin_has_it(launchers: Path) -> None:
    with servers.redis() as address:
        done = run(launchers, rust.component("things-redis"), address, 10, flags=("--network",))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0


@pytest.fixture
def app(launchers: Path, tmp_path: Path) -> Iterator[App]:
    program = rust.component("things-server")
    with http_app.running(
        program, tmp_path / "output", engine="more-things", launchers=launchers, SHIMD_HTTP_TIMEOUT="2"
    ) as running:
        yield running


def test_a_server_goes_on_with_another_process(app: App) -> None:
    assert app.get("/greet?3").text == "hello, you\n"
    assert app.get("/end").status_code == 500
    assert app.get("/greet").text == "hello, you\n"
    assert "acme:things/shelf@1.2.0#end: the process that provides it has ended" in app.said()


def test_what_a_request_leaves_ends_with_it(app: App) -> None:
    assert app.get("/keep").text == "0\n"
    until(lambda: app.get("/lost").text == "1\n", "the book to be closed")


def test_a_request_ends_though_its_call_does_not(app: App) -> None:
    assert app.get("/wait").status_code == 504
    assert app.get("/greet").text == "hello, you\n"


def test_all_processes_end_with_the_app(app: App) -> None:
    assert app.get("/greet").text == "hello, you\n"
    processes = _below(app.process.pid)
    assert len(processes) >= 4  # the fork server, the worker, and the two of its providers
    app.process.kill()
    app.process.wait()
    until(lambda: not any(Path(f"/proc/{it}").exists() for it in processes), "the processes to end")


def _below(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [it for child in map(int, children) for it in (child, *_below(child))]


@pytest.fixture
def reader(launchers: Path, tmp_path: Path) -> Iterator[App]:
    """What is given streams and futures."""
    with http_app.running(
        flows(), tmp_path / "output", engine="more-things", launchers=launchers, SHIMD_HTTP_TIMEOUT="5"
    ) as running:
        yield running


def test_items_of_streams_and_futures(reader: App) -> None:
    """Of many kinds, as values are."""
    told = reader.get("/entries").text
    for part in (
        "'title': 'Emma', 'pages': 300, 'at': Place_Row(value=(7, 'ü')), 'mood': <Mood.WILD: 1>",
        "'marks': <Marks.READ|TORN: 5>, 'weight': 0.5, 'depth': -3, 'raw': b'\\x00\\xff'",
        "'rows': [(1, 1099511627776), (2, 3)], 'went': Err(value='not far')}",
        "'title': '', 'pages': None, 'at': Place_Room(value='attic')",
        "'marks': <Marks: 0>",
        "'went': Ok(value=9)}",
        "Ok(value=Entry(title='last', pages=300, at=Place_Nowhere(),",
    ):
        assert part in told, told
    assert told.count("'title': 'Emma'") == 2
    assert reader.get("/later").text == "(['Emma', '', 'Emma'], 'last')"
    assert reader.get("/books").text == "['one', 'two', 'three']"
    assert reader.get("/nested").text == "[['a', 'a'], ['b', 'b']]"


def test_bytes_of_a_stream_that_a_guest_passes_on(reader: App) -> None:
    assert reader.get("/bytes?20000").content == bytes(range(250)) * 80


def test_a_stream_that_is_passed_on_after_its_guest_has_ended(reader: App) -> None:
    """For longer than an instance is kept that does nothing."""
    assert len(reader.get("/bytes?20000000").content) == 20_000_000


def test_streams_that_are_not_read_to_their_ends(reader: App) -> None:
    """They are closed, and so is what they wait for."""
    assert reader.get("/left").text == "10"
    assert reader.get("/hangs").status_code == 504
    assert reader.get("/left").text == "10"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/wrong", "an item of a stream is wrong: a text is there where a whole number is wanted"),
        ("/breaks", "a stream or a future: ZeroDivisionError: "),
    ],
)
def test_a_stream_that_fails_ends_the_guest(reader: App, path: str, why: str) -> None:
    assert reader.get(path).status_code == 500
    assert why in reader.said()
    assert reader.get("/nested").status_code == 200


@pytest.fixture
def box(version: Version, launchers: Path, command: Path, tmp_path: Path) -> Iterator[Box]:
    runtime = Runtime("things", IMAGE, "/things.wasm", "io.containerd.more-things.v1")
    with strangers_box(version, launchers, runtime, command.read_bytes(), tmp_path) as box:
        yield box


def test_a_container(box: Box) -> None:
    done = box.run("things", "books")
    assert (done.code, done.out) == (0, "lost 2\n")


def test_its_providers_have_what_the_guest_has_and_no_more(box: Box) -> None:
    box.detach("things", "wait")
    worker, _status = box.tasks()["things"]
    until(lambda: len(_below(worker)) == 2, "the processes of its providers")
    others = _below(worker)
    assert {_place(it) for it in others} == {_place(worker)}
    box.ctr("tasks", "kill", "--signal", "KILL", "things")
    until(lambda: not any(Path(f"/proc/{it}").exists() for it in others), "the processes to end")


def _place(process: int) -> tuple[object, ...]:
    """What a process may do, and where it is."""
    kept = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    spaces = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    return (
        *(status[name].strip() for name in kept),
        *(Path(f"/proc/{process}/ns/{name}").readlink() for name in spaces),
        Path(f"/proc/{process}/cgroup").read_text(),
        Path(f"/proc/{process}/root").stat().st_ino,
    )
