"""Which file is the program, and the words if there is none: those of runc, from which Docker derives exit codes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shimd.oci import Process, User
from shimd.oci.programs import Program, find_program

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for files of others")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """It has one program for everyone, one for its owner, and one below a directory that is root's alone."""
    for place, mode in (("bin", 0o755), ("private", 0o700), ("bin/directory", 0o755)):
        (tmp_path / place).mkdir()
        (tmp_path / place).chmod(mode)
    for place, mode in (
        ("bin/app.wasm", 0o644), ("bin/secret.wasm", 0o600), ("bin/group.wasm", 0o640), ("bin/run.wasm", 0o711),
        ("private/app.wasm", 0o644),
    ):  # fmt: skip
        (tmp_path / place).write_bytes(b"\0asm")
        (tmp_path / place).chmod(mode)
    os.chown(tmp_path / "bin/group.wasm", 0, 100)
    (tmp_path / "loop").symlink_to("loop")
    tmp_path.chmod(0o755)
    yield tmp_path


def found(root: Path, name: str, user: User | None = None) -> Program:
    process: Process = {"args": [name], "cwd": "/", "env": ["PATH=/nowhere:/bin"], "user": user or {}}
    directory = os.open(root, os.O_PATH)
    try:
        program = find_program(directory, process)
    finally:
        os.close(directory)
    if program.file is not None:
        assert os.pread(program.file, 4, 0) == b"\0asm"
        os.close(program.file)
    return program


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/nope.wasm", "/nope.wasm: no such file or directory"),
        ("./nope.wasm", "/./nope.wasm: no such file or directory"),
        ("nope.wasm", "nope.wasm: executable file not found in $PATH"),
        ("nope.wasm#run", "nope.wasm: executable file not found in $PATH"),
        ("directory", "directory: executable file not found in $PATH"),
        ("/bin/directory", "/bin/directory: is a directory"),
        ("/", "/: is a directory"),
        ("/bin/app.wasm/below", "/bin/app.wasm/below: not a directory"),
        ("/loop", "/loop: too many levels of symbolic links"),
        ("/" + "x" * 300, f"/{'x' * 300}: file name too long"),
    ],
)
def test_what_is_missing_is_said_as_runc_says_it(root: Path, name: str, words: str) -> None:
    program = found(root, name)
    assert (program.file, program.missing) == (None, words)


def test_a_program_is_looked_for_in_path(root: Path) -> None:
    assert found(root, "app.wasm").path == "/bin/app.wasm"


@pytest.mark.parametrize("name", ["/bin/app.wasm", "/bin/run.wasm"])
@pytest.mark.parametrize("uid", [0, 1000])
def test_nobody_need_be_allowed_to_execute_a_module(root: Path, name: str, uid: int) -> None:
    assert found(root, name, {"uid": uid, "gid": uid}).file is not None


@pytest.mark.parametrize("name", ["/bin/secret.wasm", "/bin/group.wasm", "/private/app.wasm"])
def test_what_its_user_may_not_have_is_refused(root: Path, name: str) -> None:
    assert found(root, name, {"uid": 1000, "gid": 1000}).missing == f"{name}: permission denied"
    assert found(root, name, {"uid": 0}).file is not None


def test_a_users_groups_count(root: Path) -> None:
    assert found(root, "/bin/group.wasm", {"uid": 1000, "gid": 100}).file is not None
    assert found(root, "/bin/group.wasm", {"uid": 1000, "gid": 1000, "additionalGids": [5, 100]}).file is not None


def test_this_process_is_itself_again(root: Path) -> None:
    before = Path("/proc/self/status").read_text().split("VmPeak")[0], os.getgroups()
    found(root, "/bin/secret.wasm", {"uid": 1000, "gid": 1000, "additionalGids": [7]})
    assert (Path("/proc/self/status").read_text().split("VmPeak")[0], os.getgroups()) == before
    (root / "bin/secret.wasm").read_bytes()
