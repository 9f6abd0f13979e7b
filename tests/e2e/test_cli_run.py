"""``shimd run``: the worker with no containerd and no daemon around it."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shimd.engines.registry import engine_names, lacking
from tests import wasmer
from tests.e2e import leftovers
from tests.e2e.box import until
from tests.e2e.containerd import LAUNCHERS, PATIENCE
from tests.unit.engines.programs import component
from tests.wasmtimes import HOSTS

Done = subprocess.CompletedProcess[str]
ENGINES = ["wasmtime", *wasmer.BINDINGS, *([] if lacking("wasmedge") else ["wasmedge"])]
#: Those with the host's directories, and functions other than _start.
WHOLE = ["wasmtime", "wasmer"] if wasmer.NATIVE else ["wasmtime"]
#: Compiles for some seconds at least: many functions, none of them short.
SLOW = 30_000


class Rig:
    """Runs programs with a cache and a temporary directory of their own."""

    def __init__(self, directory: Path, app: bytes) -> None:
        self.directory = directory
        self.app = directory / "app.wasm"
        self.app.write_bytes(app)
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self._started: list[subprocess.Popen[str]] = []
        self.env = {
            "PATH": "/usr/bin:/bin",
            "SHIMD_CACHE_DIR": str(directory / "cache"),
            "TMPDIR": str(self.temporary),
            "COLOUR": "blue",
        }

    def command(self, *arguments: object) -> list[str]:
        return [str(LAUNCHERS / "shimd"), "run", *map(str, arguments)]

    def __call__(self, *arguments: object, stdin: str | None = None) -> Done:
        pipe: dict[str, Any] = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(
            self.command(*arguments),
            env=self.env,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            **pipe,
        )

    def popen(self, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.command(*arguments),
            env=self.env,
            cwd=self.directory,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        leftovers.end(self.processes())
        for process in self._started:
            process.communicate()

    def processes(self) -> list[int]:
        return list(leftovers.processes_of(self.directory))


@pytest.fixture
def rig(programs: tuple[bytes, bytes]) -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="shimd-run-") as directory:
        Path(directory).chmod(0o755)
        rig = Rig(Path(directory), programs[1])
        yield rig
        rig.close()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def nothing_is_left(rig: Rig) -> None:
    assert not list(rig.temporary.iterdir())


def test_output_and_exit_codes(rig: Rig, engine: str) -> None:
    done = rig("--engine", engine, rig.app)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello from app\n", "")
    done = rig("--engine", engine, rig.app, "error", "oh")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "oh\n")
    for code in (1, 7, 126, 255):
        assert rig("--engine", engine, rig.app, "exit", code).returncode == code
    nothing_is_left(rig)


def test_a_trap(rig: Rig, engine: str) -> None:
    done = rig("--engine", engine, rig.app, "abort")
    assert done.returncode == 134
    assert "unreachable" in done.stderr


def test_options_after_the_program_are_its_own(rig: Rig, engine: str) -> None:
    assert rig("--engine", engine, rig.app, "echo", "--json", "-h", "a b").stdout == "--json -h a b\n"


def test_a_sleep_of_no_time(rig: Rig, engine: str) -> None:
    if engine.startswith("wasmer") and engine not in WHOLE:
        pytest.skip("WASIX by itself waits for ever: docs/engines.md")
    done = rig("--engine", engine, rig.app, "sleep", 0)
    assert (done.returncode, done.stdout, done.stderr) == (0, "sleeping\nawake\n", "")


def test_stdin(rig: Rig, engine: str) -> None:
    text = "".join(f"line {number}\n" for number in range(20000))
    assert rig("--engine", engine, rig.app, "cat", stdin=text).stdout == text


def test_environment_is_only_what_was_given(rig: Rig, engine: str) -> None:
    done = rig("--engine", engine, "--env", "A=b=c", "--env", "COLOUR", rig.app, "env")
    variables = {line for line in done.stdout.splitlines() if not line.startswith("PWD=")}
    assert variables == {"A=b=c", "COLOUR=blue"}


@pytest.mark.parametrize("engine", WHOLE)
def test_directories(rig: Rig, engine: str) -> None:
    on = ("--engine", engine)
    (rig.directory / "data").mkdir()
    (rig.directory / "data" / "note").write_text("a note\n")
    assert rig(*on, rig.app, "read", "/data/note").returncode == 1
    assert rig(*on, "--dir", "data::/data", rig.app, "read", "/data/note").stdout == "a note\n"
    assert rig(*on, "--dir", "data::/data", "--cwd", "/data", rig.app, "read", "note").stdout == "a note\n"
    assert rig(*on, "--dir", "data::/", "--cwd", "/", rig.app, "read", "/note").stdout == "a note\n"
    assert rig(*on, "--dir", ".", rig.app, "read", "data/note").stdout == "a note\n"
    assert rig(*on, "--dir", "data::/data", rig.app, "read", "/data/../app.wasm").returncode == 1
    assert rig(*on, "--dir", "data::/data", rig.app, "write", "/data/new", "text").returncode == 0
    assert (rig.directory / "data" / "new").read_text() == "text\n"
    assert rig(*on, "--dir", "data::/data:ro", rig.app, "write", "/data/newer", "text").returncode == 1
    assert not (rig.directory / "data" / "newer").exists()


def test_wrong_directories(rig: Rig) -> None:
    done = rig("--dir", "nowhere::/data", rig.app)
    assert (done.returncode, done.stderr) == (126, "shimd: --dir nowhere::/data: nowhere is not a directory\n")
    done = rig("--cwd", "/data", rig.app)
    assert (done.returncode, done.stderr) == (126, "shimd: --cwd /data is in no directory of --dir\n")


def test_programs_that_do_not_run(rig: Rig, engine: str) -> None:
    bad, text, native = rig.directory / "bad.wasm", rig.directory / "bad.wat", "/bin/true"
    bad.write_bytes(rig.app.read_bytes()[:200])
    text.write_text("(module")
    for program, code, words in (
        ("nowhere.wasm", 127, "nowhere.wasm: no such file or directory"),
        (".", 126, ". is a directory without a spin.toml or a slightfile.toml"),
        (native, 126, "native (ELF) program"),
        (bad, 126, "not valid WebAssembly"),
        (text, 126, "not valid WebAssembly"),
        ("/dev/null", 126, "is not a file"),
    ):
        done = rig("--engine", engine, program)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert words in done.stderr
        assert done.stderr.startswith("shimd: ") and len(done.stderr.splitlines()) == 1
    done = rig("--engine", engine, "--invoke", "nope", rig.app)
    assert done.returncode == 126
    assert "nope" in done.stderr
    nothing_is_left(rig)


def test_an_engine_that_is_not_there(rig: Rig) -> None:
    done = rig("--engine", "nope", rig.app)
    assert done.returncode == 125
    assert f"engine nope is not installed; installed are {', '.join(engine_names())}" in done.stderr


@pytest.mark.parametrize("engine", WHOLE)
def test_another_function(rig: Rig, engine: str) -> None:
    wat = rig.directory / "two.wat"
    wat.write_text(
        '(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)'
        '(func (export "_start") (call $exit (i32.const 1))) (func (export "other") (call $exit (i32.const 2))))'
    )
    assert rig("--engine", engine, wat).returncode == 1
    assert rig("--engine", engine, "--invoke", "other", wat).returncode == 2
    assert rig("--engine", engine, f"{wat}#other").returncode == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_signals_end_a_spinning_app(rig: Rig, engine: str, number: signal.Signals) -> None:
    process = rig.popen("--engine", engine, rig.app, "spin")
    assert process.stdout is not None
    assert process.stdout.readline() == "spinning\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (128 + number, "")
    assert not rig.processes()
    nothing_is_left(rig)


def test_a_killed_run_takes_its_app_along(rig: Rig, engine: str) -> None:
    process = rig.popen("--engine", engine, rig.app, "spin")
    assert process.stdout is not None
    assert process.stdout.readline() == "spinning\n"
    process.kill()
    process.communicate()
    until(lambda: not rig.processes(), "the app to end")


def test_a_fork_server_that_is_killed_takes_its_app_along(rig: Rig, engine: str) -> None:
    process = rig.popen("--engine", engine, rig.app, "spin")
    assert process.stdout is not None
    assert process.stdout.readline() == "spinning\n"
    (server,) = leftovers.children_of(process.pid)
    os.kill(server, signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (137, "")
    until(lambda: not rig.processes(), "the app to end")
    nothing_is_left(rig)


def slow_module() -> str:
    body = "(local.set 0 (i32.mul (i32.add (local.get 0) (i32.const 7)) (i32.rotl (local.get 0) (i32.const 3))))"
    functions = "".join(f"(func (result i32) (local i32) {body * 12} (local.get 0))" for _ in range(SLOW))
    return f'(module (memory (export "memory") 1) (func (export "_start")) {functions})'


@pytest.mark.parametrize("spoil", [lambda path: os.truncate(path, 0), lambda path: os.truncate(path, 100), os.unlink])
def test_a_compiled_module_that_does_not_load_is_compiled_again(
    rig: Rig, engine: str, spoil: Callable[[Path], None]
) -> None:
    """Whichever of its files a crash of the disk spoiled."""
    run = ("--json", "--engine", engine, rig.app, "exit", 7)
    assert rig(*run).returncode == 7
    (artifact,) = (rig.directory / "cache").glob("*/*/*/artifact")
    names = [path.relative_to(artifact) for path in artifact.rglob("*") if path.is_file()]
    assert names
    for name in names:
        spoil(artifact / name)
        done = rig(*run)
        assert (done.returncode, json.loads(done.stderr)["error"]) == (7, None), (name, done.stderr)
        again = rig(*run)
        assert (again.returncode, json.loads(again.stderr)["compile_seconds"]) == (7, None), name


def test_an_entry_that_is_not_even_a_directory_is_made_again(rig: Rig, engine: str) -> None:
    assert rig("--engine", engine, rig.app).returncode == 0
    (artifact,) = (rig.directory / "cache").glob("*/*/*/artifact")
    shutil.rmtree(artifact.parent)
    artifact.parent.touch()
    done = rig("--engine", engine, rig.app)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello from app\n", "")
    assert artifact.exists()


def test_a_component_of_spins_is_refused_in_a_sentence(rig: Rig) -> None:
    (rig.directory / "spin.wasm").write_bytes(component("fermyon:spin/key-value@2.0.0"))
    for engine in ("wasmtime", "spin"):
        done = rig("--engine", engine, "spin.wasm")
        assert done.returncode == 126
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "spin" in done.stderr.lower()


def test_engines_of_one_family_have_one_entry_of_a_module(rig: Rig) -> None:
    """Spin and Slight are of wasmtime's portable host."""
    for engine in ("wasmtime", "spin", "slight"):
        assert rig("--engine", engine, rig.app, "echo", "hello").stdout == "hello\n"
    assert len(list((rig.directory / "cache").glob("*/*/*/artifact"))) == len(HOSTS)


def test_a_signal_ends_a_compilation(rig: Rig) -> None:
    wat = rig.directory / "slow.wat"
    wat.write_text(slow_module())
    process = rig.popen(wat)
    until(lambda: list((rig.directory / "cache").glob("*/*/tmp.*")), "the compilation to start")
    until(lambda: any(filtered(pid) for pid in rig.processes()), "the compile worker to have a filter")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (143, "", "")
    assert not rig.processes()
    assert not list((rig.directory / "cache").glob("*/*/*"))
    nothing_is_left(rig)


def filtered(pid: int) -> bool:
    """Whether a process has a seccomp filter (proc_pid_status(5))."""
    try:
        return "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_json_tells_how_it_went(rig: Rig) -> None:
    before = time.time()
    done = rig("--json", rig.app, "exit", 7)
    first = json.loads(done.stderr)
    assert (done.returncode, first["exit_status"], first["error"], first["engine"]) == (7, 7, None, "wasmtime")
    assert first["compile_seconds"] > 0 and first["pid"] > 0
    assert first["started_at"] < first["exited_at"]
    assert time.gmtime(before)[:3] <= time.gmtime()[:3]
    assert json.loads(rig("--json", rig.app).stderr)["compile_seconds"] is None
    failed = json.loads(rig("--json", "nowhere.wasm").stderr)
    assert (failed["exit_status"], failed["error"], failed["pid"]) == (
        127,
        "nowhere.wasm: no such file or directory",
        0,
    )


def test_progress_on_a_terminal_only(rig: Rig) -> None:
    """``script`` gives it a terminal."""
    command = " ".join(rig.command(rig.app))
    env = {**rig.env, "TERM": "xterm"}
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"], env=env, cwd=rig.directory, capture_output=True, timeout=PATIENCE
    )
    assert b"compiling" in done.stdout and b"for wasmtime" in done.stdout
    assert done.stdout.endswith(b"hello from app\r\n")
    (rig.directory / "cache").rename(rig.directory / "old")
    assert rig(rig.app).stderr == ""


def test_without_root(rig: Rig, engine: str) -> None:
    home = rig.directory / "home"
    home.mkdir()
    for path in (home, rig.temporary):
        os.chown(path, 65534, 65534)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "TMPDIR": str(rig.temporary)}
    for _ in range(2):
        done = subprocess.run(
            rig.command("--engine", engine, rig.app, "echo", "as nobody"),
            env=env,
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "as nobody\n", "")
    assert len(list((home / ".cache/shimd" / engine).glob("*/*/artifact"))) == 1
