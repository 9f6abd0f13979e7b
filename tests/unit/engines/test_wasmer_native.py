"""What wasmer's native binding gives that the one from PyPI does not: the host's directories, and all entries."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shimd.engine import Invocation, Preopen
from shimd.engines.registry import engine_version
from shimd.testing.contract import WASI, dump
from shimd.testing.rig import ChildOutcome, ChildProcess, Rig
from tests.conformance.guests import compiled
from tests.wasmer import native_only

pytestmark = native_only
Files = Callable[..., ChildOutcome]
#: EROFS is not among what WASIX's file systems can say: it is "not permitted" (63 in WASI preview 1).
DENIED = "errno 63\n"
MISSING = "errno 44\n"
LINKS = ["/etc/hostname", "../" * 9 + "etc/hostname", "/proc/self/root/etc/hostname"]
FUNCTIONS = f"""(module (import "{WASI}" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)
  (func (export "_start")) (func (export "other") (call $exit (i32.const 7))) (func (export "traps") unreachable)
  (func (export "takes") (param i32)))"""
#: Starts a thread, and waits for what comes of it.
THREADS = f"""(module (import "env" "memory" (memory 1 16 shared)) (export "memory" (memory 0))
  (import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))
  (import "{WASI}" "proc_exit" (func $exit (param i32)))
  (import "{WASI}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (func (export "wasi_thread_start") (param $id i32) (param $argument i32) %s)
  (func (export "_start") (drop (call $spawn (i32.const 33))) %s))"""
STORES = """(i32.atomic.store (i32.const 64) (local.get $argument))
  (drop (memory.atomic.notify (i32.const 64) (i32.const 1)))"""
EXITS_WITH_IT = """(drop (memory.atomic.wait32 (i32.const 64) (i32.const 0) (i64.const -1)))
  (call $exit (i32.atomic.load (i32.const 64)))"""
#: One clock subscription of 1000 s.
SLEEPS = """(i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const 1000000000000))
  (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))"""
SAYS_AND_SPINS = f"""(module (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 16) ".")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 1))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (loop $l (br $l))))"""


@pytest.fixture
def engine_name() -> str:
    return "wasmer"


@pytest.fixture
def files(rig: Rig, tmp_path: Path) -> Files:
    """``files COMMAND PATH …`` with the test's directory as ``/``, or with other directories."""
    artifact = rig.precompile(compiled(Path(__file__).with_name("guests") / "files.c").read_bytes())

    def run(*arguments: str, preopens: list[Preopen] | None = None) -> ChildOutcome:
        given = [Preopen(str(tmp_path), "/")] if preopens is None else preopens
        return rig.start(artifact, Invocation(["files", *arguments], preopens=given)).end()

    return run


def test_files_are_the_hosts(files: Files, tmp_path: Path) -> None:
    (tmp_path / "from-host").write_text("host\n")
    assert files("get", "/from-host").out == "host\n"
    assert files("put", "/from-guest", "guest").code == 0
    assert (tmp_path / "from-guest").read_text() == "guest"
    assert files("mkdir", "/made").code == 0
    assert {"from-host", "from-guest", "made", "artifacts"} <= set(files("list", "/").out.split())
    assert files("unlink", "/from-host").code == 0
    assert not (tmp_path / "from-host").exists()


def test_appending(files: Files, tmp_path: Path) -> None:
    """What another process appended between two runs stays."""
    for number in range(2):
        assert files("append", "/log", f"guest {number}\n").code == 0
        with open(tmp_path / "log", "a") as log:
            log.write(f"host {number}\n")
    assert (tmp_path / "log").read_text() == "guest 0\nhost 0\nguest 1\nhost 1\n"


def test_what_appends_goes_to_the_end_whoever_moved_it(files: Files, tmp_path: Path) -> None:
    done = files("alternate", "/log", "/alias")
    assert (done.code, done.out) == (0, "")
    assert (tmp_path / "log").read_text() == "FIRST\nsecond\nfirst\nsecond\n"


def test_hard_links(files: Files, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("text")
    assert files("link", "/file", "/directory/other").out == ""
    assert (tmp_path / "directory/other").stat().st_ino == (tmp_path / "file").stat().st_ino
    assert files("link", "/file", "/directory/other").out == "errno 20\n"
    assert files("link", "/nothing", "/other").out == MISSING


def test_a_log_that_is_rotated_while_it_is_open(files: Files, tmp_path: Path) -> None:
    done = files("rotate", "/log", "/log.1")
    assert (done.code, done.out) == (0, "")
    assert (tmp_path / "log.1").read_text() == "one\ntwo\n"
    assert (tmp_path / "log").read_text() == "three\n"


def test_a_file_that_is_renamed_and_removed_while_it_is_open(files: Files, tmp_path: Path) -> None:
    done = files("remove-renamed", "/first", "/second")
    assert (done.code, done.out) == (0, "")
    assert not (tmp_path / "first").exists() and not (tmp_path / "second").exists()


def test_renaming_into_another_directory_keeps_the_file(files: Files, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "directory").mkdir()
    number = (tmp_path / "file").stat().st_ino
    assert files("rename", "/file", "/directory/file").out == ""
    assert (tmp_path / "directory/file").stat().st_ino == number


def test_times(files: Files, tmp_path: Path) -> None:
    """Of an open file, and by a path."""
    for name in ("open", "named"):
        (tmp_path / name).touch()
    assert files("times", "/open", "/named").out == ""
    for name in ("open", "named"):
        status = (tmp_path / name).stat()
        assert (status.st_atime, status.st_mtime) == (1000, 2000)
    assert tmp_path.stat().st_mtime != 2000


def test_inode_numbers_and_links(files: Files, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").hardlink_to(tmp_path / "file")
    expected = f"{(tmp_path / 'file').stat().st_ino} 2\n"
    assert files("number", "/file").out == files("number", "/link").out == expected


def test_a_directory_that_cannot_be_unlinked_or_moved_stays(files: Files, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    done = files("refused", "/empty", "/full")
    assert (done.code, done.out) == (0, "")
    assert not (tmp_path / "empty").exists()


def test_read_only(files: Files, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    preopens = [Preopen(str(tmp_path), "/", read_only=True)]
    assert files("get", "/kept", preopens=preopens).out == "kept"
    for command in (("put", "/kept", "no"), ("append", "/kept", "no"), ("put", "/new", "no"), ("mkdir", "/new")):
        assert files(*command, preopens=preopens).out == DENIED
    for command in (("unlink", "/kept"), ("rename", "/kept", "/other"), ("link", "/kept", "/other")):
        assert files(*command, preopens=preopens).out == DENIED
    for command in (("symlink", "/link", "kept"),):
        assert files(*command, preopens=preopens).out == DENIED
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "artifacts"}
    assert (tmp_path / "kept").read_text() == "kept"


def test_several_directories(files: Files, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "note").write_text(name)
    preopens = [Preopen(str(tmp_path / "one"), "/a"), Preopen(str(tmp_path / "two"), "/b/c", read_only=True)]
    assert files("get", "/a/note", preopens=preopens).out == "one"
    assert files("get", "/b/c/note", preopens=preopens).out == "two"
    assert files("put", "/a/new", "new", preopens=preopens).out == ""
    assert (tmp_path / "one/new").read_text() == "new"
    assert files("put", "/b/c/new", "new", preopens=preopens).code == 1
    assert not (tmp_path / "two/new").exists()


@pytest.mark.parametrize("target", LINKS)
def test_no_symlink_leads_out(files: Files, tmp_path: Path, target: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(target)
    assert files("get", "/link", preopens=[Preopen(str(inside), "/")]).out in (MISSING, DENIED)
    assert files("get", "/data/link", preopens=[Preopen(str(inside), "/data")]).code == 1
    assert files("get", "/../../etc/hostname", preopens=[Preopen(str(inside), "/")]).out == MISSING


def test_no_directories(files: Files) -> None:
    assert files("get", "/etc/hostname", preopens=[]).code == 1
    assert files("put", "/new", "text", preopens=[]).code == 1


def test_what_is_no_terminal(files: Files) -> None:
    assert files("isatty").out == "0\n1\n2\n"


def test_a_terminal(rig: Rig) -> None:
    artifact = rig.precompile(compiled(Path(__file__).with_name("guests") / "files.c").read_bytes())
    ours, theirs = pty.openpty()

    def act() -> int:
        for fd in (0, 2):
            os.dup2(theirs, fd)
        return rig.engine.run(rig.loaded(artifact), Invocation(["files", "isatty"]))

    assert ChildProcess(act).end().out == "0 is a terminal\n1\n2 is a terminal\n"
    os.close(ours)
    os.close(theirs)


def test_wasi_and_wasix_in_one_module(rig: Rig) -> None:
    wat = f"""(module (import "{WASI}" "proc_exit" (func $exit (param i32)))
      (import "wasix_32v1" "proc_id" (func $pid (param i32) (result i32))) (memory (export "memory") 1)
      (func (export "_start")
        (call $exit (i32.add (call $pid (i32.const 0)) (i32.add (i32.const 40) (i32.load (i32.const 0)))))))"""
    assert rig.run(wat).code == 41


def test_argv_0_is_the_programs_path(rig: Rig) -> None:
    assert rig.run(dump("args"), Invocation(["/bin/app.wasm", "one"])).out == "/bin/app.wasm\0one\0"


def test_the_working_directory_is_told(rig: Rig, tmp_path: Path) -> None:
    invocation = Invocation(["app"], cwd="/artifacts", preopens=[Preopen(str(tmp_path), "/")])
    assert rig.run(dump("environ"), invocation).out == "PWD=/artifacts\0"


@pytest.mark.parametrize(
    ("thread", "main", "code"), [(STORES, EXITS_WITH_IT, 33), ("(call $exit (i32.const 5))", SLEEPS, 5)]
)
def test_threads_of_the_guest(rig: Rig, thread: str, main: str, code: int) -> None:
    """They share memory, and any of them ends the program."""
    assert rig.run(THREADS % (thread, main)).code == code


def test_a_guest_that_asks_for_nothing_is_one_thread(rig: Rig) -> None:
    artifact = rig.precompile(SAYS_AND_SPINS)
    ours, theirs = os.pipe()

    def act() -> int:
        os.dup2(theirs, 1)
        return rig.engine.run(rig.loaded(artifact), Invocation(["app"]))

    child = ChildProcess(act)
    assert os.read(ours, 1) == b"."
    assert len(os.listdir(f"/proc/{child.pid}/task")) == 1
    os.kill(child.pid, signal.SIGKILL)
    child.end()
    os.close(ours)
    os.close(theirs)


def test_the_bindings_share_no_artefact() -> None:
    assert "native" in engine_version("wasmer")
    assert engine_version("wasmer") != engine_version("wasmer-sdk")


def test_the_library_is_found_without_its_engine() -> None:
    """The supervisor asks for the version; it must not load a library of tens of megabytes."""
    program = """
from shimd.engines.registry import engine_version
engine_version("wasmer")
assert "libshimd_wasmer" not in open("/proc/self/maps").read()"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


STREAM = f"""(module
  (import "{WASI}" "fd_filestat_get" (func $stat (param i32 i32) (result i32)))
  (import "{WASI}" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $stat (i32.const 0) (i32.const 64)))
    (call $exit (i32.load8_u (i32.const 80)))))"""


def test_a_pipe_is_no_terminal_to_who_asks_for_its_file(rig: Rig) -> None:
    """Go's programs read their stdin only then (yq)."""
    assert rig.run(STREAM, stdin=b"words").code == 0
