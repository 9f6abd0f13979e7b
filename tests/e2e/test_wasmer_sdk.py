"""wasmer by the binding from PyPI: files are copied into memory; what that cannot do is said before an app starts."""

from pathlib import Path

from tests.e2e.box import Box, until, wasmer_sdk_only

pytestmark = wasmer_sdk_only


def bind(source: Path, mode: str) -> tuple[str, ...]:
    return ("--rm", "--mount", f"type=bind,src={source},dst=/mnt,options=rbind:{mode}")


def test_output_and_exit_code(box: Box) -> None:
    assert box.run("app", "echo", "one", "two").out == "one two\n"
    assert box.run("app", "exit", 7).code == 7


def test_files_of_the_image_are_copied(box: Box) -> None:
    assert box.run("app", "read", "/data/note").out == "a note\n"


def test_a_read_only_mount_is_copied(box: Box, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("from the host\n")
    assert box.run("app", "read", "/mnt/note", flags=bind(tmp_path, "ro")).out == "from the host\n"


def test_a_read_write_mount_is_refused(box: Box, tmp_path: Path) -> None:
    done = box.run("app", "write", "/mnt/new", "text", flags=bind(tmp_path, "rw"))
    assert done.code != 0
    assert "cannot share /mnt read-write: mount it read-only, or use the wasmtime engine" in done.err
    assert not list(tmp_path.iterdir())


def test_a_signal_ends_a_guest_that_spins(box: Box) -> None:
    box.detach("app", "spin")
    until(lambda: box.status("app") == "RUNNING", "the app")
    box.kill("app", "SIGTERM")
    box.wait_status("app", "STOPPED")
    assert box.delete("app") == 143
