"""The file system that an app sees: the image, mounts, the working directory, and as whom it writes."""

from pathlib import Path

import pytest

from tests.e2e.box import Box, content, until, with_directories, with_working_directory


@pytest.fixture
def shared(box: Box, tmp_path: Path) -> Path:
    """A directory of the host with a file."""
    (tmp_path / "note").write_text("from the host\n")
    tmp_path.chmod(0o777)
    return tmp_path


def bind(source: Path, destination: str, mode: str) -> tuple[str, ...]:
    return ("--rm", "--mount", f"type=bind,src={source},dst={destination},options=rbind:{mode}")


def test_file_of_the_image(box: Box) -> None:
    assert box.run("app", "read", "/data/note").out == "a note\n"


def test_directory_of_the_image(box: Box) -> None:
    assert {"app", "app.wasm", "data"} <= set(box.run("app", "list", "/").out.split())


def test_missing_file(box: Box) -> None:
    done = box.run("app", "read", "/nothing")
    assert done.code == 1
    assert "No such file or directory" in done.err


@with_directories
def test_what_is_written_stays_in_the_container(box: Box) -> None:
    box.detach("app", "sleep", 600)
    assert box.exec("app", "w", "write", "/tmp/new", "text").code == 0
    assert box.exec("app", "r", "read", "/tmp/new").out == "text\n"
    assert box.run("other", "read", "/tmp/new").code == 1


@with_directories
def test_read_only_root(box: Box) -> None:
    done = box.run("app", "write", "/tmp/new", "text", flags=("--rm", "--read-only"))
    assert done.code == 1
    assert done.err == f"/tmp/new: {read_only(box)}\n"


def read_only(box: Box) -> str:
    """How a guest names it: WASI has EROFS, and wasmtime does not."""
    return "Permission denied" if box.runtime.name == "wasmtime" else "Read-only file system"


@with_directories
def test_a_volume_in_a_read_only_root(box: Box, tmp_path: Path) -> None:
    """Each mount has its own say: the root's is not its volumes', nor one volume's that of another below."""
    for name in ("volume/inner", "data/inner", "data/kept"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    mounts = [
        "type=tmpfs,src=tmpfs,dst=/tmp,options=size=64k",
        f"type=bind,src={tmp_path}/volume,dst=/mnt,options=rbind:rw",
        f"type=bind,src={tmp_path}/data,dst=/mnt/inner,options=rbind:ro",
        f"type=bind,src={tmp_path}/volume,dst=/mnt/inner/inner,options=rbind:rw",
        f"type=bind,src={tmp_path}/file,dst=/run/file,options=bind:ro",
    ]
    box.detach("app", "sleep", 600, flags=("--read-only", *(flag for mount in mounts for flag in ("--mount", mount))))
    for number, path in enumerate(("/tmp/new", "/mnt/new", "/mnt/inner/inner/newer")):
        done = box.exec("app", f"rw{number}", "write", path, "text")
        assert (done.code, done.err) == (0, ""), path
    for number, path in enumerate(("/etc/new", "/mnt/inner/new", "/run/file", "/mnt/inner/kept/new")):
        done = box.exec("app", f"ro{number}", "write", path, "text")
        assert (done.code, done.err) == (1, f"{path}: {read_only(box)}\n")
    assert {path.name for path in (tmp_path / "volume").iterdir()} == {"inner", "new", "newer"}


@with_directories
def test_bind_mount_read_write(box: Box, shared: Path) -> None:
    assert box.run("app", "read", "/mnt/note", flags=bind(shared, "/mnt", "rw")).out == "from the host\n"
    assert box.run("app", "write", "/mnt/new", "from the app", flags=bind(shared, "/mnt", "rw")).code == 0
    assert (shared / "new").read_text() == "from the app\n"


@with_directories
def test_bind_mount_read_only(box: Box, shared: Path) -> None:
    assert box.run("app", "read", "/mnt/note", flags=bind(shared, "/mnt", "ro")).out == "from the host\n"
    assert box.run("app", "write", "/mnt/new", "text", flags=bind(shared, "/mnt", "ro")).code == 1
    assert not (shared / "new").exists()


@with_directories
def test_bind_mount_where_the_image_has_nothing(box: Box, shared: Path) -> None:
    assert box.run("app", "read", "/a/b/c/note", flags=bind(shared, "/a/b/c", "ro")).out == "from the host\n"


@with_directories
def test_bind_mount_of_a_file(box: Box, shared: Path) -> None:
    assert box.run("app", "read", "/etc/note", flags=bind(shared / "note", "/etc/note", "ro")).out == "from the host\n"


@with_directories
def test_tmpfs(box: Box) -> None:
    box.detach("app", "sleep", 600, flags=("--mount", "type=tmpfs,src=tmpfs,dst=/mnt,options=size=64k"))
    assert box.exec("app", "w", "write", "/mnt/new", "text").code == 0
    assert box.exec("app", "r", "read", "/mnt/new").out == "text\n"


@with_directories
def test_a_symlink_does_not_lead_out_of_the_container(box: Box, shared: Path) -> None:
    (shared / "out").symlink_to("/etc/hostname")
    done = box.run("app", "read", "/mnt/out", flags=bind(shared, "/mnt", "rw"))
    assert done.code == 1
    assert done.out == ""


@with_working_directory
def test_working_directory(box: Box) -> None:
    assert box.run("app", "read", "note", flags=("--rm", "--cwd", "/data")).out == "a note\n"


@with_working_directory
def test_working_directory_of_an_exec(box: Box) -> None:
    box.detach("app", "sleep", 600)
    assert box.exec("app", "r", "read", "note", flags=("--cwd", "/data")).out == "a note\n"


@with_directories
def test_user_owns_what_it_writes(box: Box, shared: Path) -> None:
    image = box.runtime.image.replace(":", "-user:")
    assert box.run("app", "write", "/mnt/new", "text", flags=bind(shared, "/mnt", "rw"), image=image).code == 0
    status = (shared / "new").stat()
    assert (status.st_uid, status.st_gid) == (1234, 5678)


@with_directories
def test_user_may_not_read_what_is_not_its_own(box: Box, shared: Path) -> None:
    (shared / "note").chmod(0o600)
    image = box.runtime.image.replace(":", "-user:")
    assert box.run("app", "read", "/mnt/note", flags=bind(shared, "/mnt", "rw"), image=image).code == 1


@with_directories
def test_a_mount_made_later_on_the_host_is_not_seen_by_others(box: Box) -> None:
    """Mounts of one container are in no other's namespace, nor in the host's."""
    output = box.detach("app", "sleep", 600, flags=("--mount", "type=tmpfs,src=tmpfs,dst=/mnt,options=size=64k"))
    until(lambda: content(output), "the app's first line")
    host = Path("/proc/self/mountinfo").read_text()
    inside = Path(f"/proc/{box.pid('app')}/mountinfo").read_text()
    assert " /mnt " in inside
    assert f"/{box.namespace}/app/rootfs/mnt " not in host
