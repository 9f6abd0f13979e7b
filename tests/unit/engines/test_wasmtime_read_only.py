"""What a module is told of a change to what is read-only: the same by both of wasmtime's hosts."""

from pathlib import Path

import pytest

from shimd.engine import Invocation, Preopen
from shimd.testing.contract import WASI, parametrize
from shimd.testing.rig import Rig
from tests.wasmtimes import HOSTS

_PATH, _OTHER = "(i32.const 100) (i32.const 4)", "(i32.const 104) (i32.const 3)"
_RIGHTS = "(i64.const 0x400040) (i64.const 0)"
#: Calls below descriptor 3, where there are "file" and the directory "dir1": their parameters, and arguments.
CHANGES = {
    "path_create_directory": ("i32 i32 i32", _OTHER),
    "path_remove_directory": ("i32 i32 i32", "(i32.const 107) (i32.const 4)"),
    "path_unlink_file": ("i32 i32 i32", _PATH),
    "path_rename": ("i32 i32 i32 i32 i32 i32", f"{_PATH} (i32.const 3) {_OTHER}"),
    "path_link": ("i32 i32 i32 i32 i32 i32 i32", f"(i32.const 0) {_PATH} (i32.const 3) {_OTHER}"),
    "path_filestat_set_times": (
        "i32 i32 i32 i32 i64 i64 i32",
        f"(i32.const 0) {_PATH} (i64.const 0) (i64.const 0) (i32.const 10)",
    ),
    "path_open": (
        "i32 i32 i32 i32 i32 i64 i64 i32 i32",
        f"(i32.const 0) {_PATH} (i32.const 0) {_RIGHTS} (i32.const 0) (i32.const 8)",
    ),
    "path_open, to create": (
        "i32 i32 i32 i32 i32 i64 i64 i32 i32",
        f"(i32.const 0) {_OTHER} (i32.const 1) {_RIGHTS} (i32.const 0) (i32.const 8)",
    ),
    "path_open, to truncate": (
        "i32 i32 i32 i32 i32 i64 i64 i32 i32",
        f"(i32.const 0) {_PATH} (i32.const 8) {_RIGHTS} (i32.const 0) (i32.const 8)",
    ),
}
#: In WASI's numbers.
EPERM = 63


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc, HOSTS)


@pytest.mark.parametrize("change", [*CHANGES, "path_symlink"])
def test_a_change(rig: Rig, tmp_path: Path, change: str) -> None:
    kinds, arguments = CHANGES.get(change, ("", ""))
    call = f"(call $change (i32.const 3) {arguments})"
    if change == "path_symlink":
        kinds, call = "i32 i32 i32 i32 i32", f"(call $change {_PATH} (i32.const 3) {_OTHER})"
    (tmp_path / "root/dir1").mkdir(parents=True)
    (tmp_path / "root/file").write_text("as it was")
    module = f"""(module
      (import "{WASI}" "{change.partition(",")[0]}" (func $change (param {kinds}) (result i32)))
      (import "{WASI}" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1) (data (i32.const 100) "filenewdir1")
      (func (export "_start") (call $exit {call})))"""
    done = rig.run(module, Invocation(["app"], preopens=[Preopen(str(tmp_path / "root"), "/", True)]))
    assert (done.code, done.err) == (EPERM, "")
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == ["dir1", "file"]
    assert (tmp_path / "root/file").read_text() == "as it was"
