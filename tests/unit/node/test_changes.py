"""Files of all shapes come back to the byte; a change that fails leaves none half made."""

import os
from pathlib import Path

import pytest

from shimd.errors import FailedPrecondition
from shimd.node import containerd
from shimd.node.changes import Change, applied, needed
from tests.unit.node.support import apply, files

NAMES = ("wasmer", "wasmtime")
V2 = 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "registry.invalid/pause:3"\n'


@pytest.fixture
def main(tmp_path: Path) -> Path:
    path = tmp_path / "etc/containerd/config.toml"
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "# nothing", V2, V2.rstrip("\n"), V2.replace("\n", "\r\n"), V2.replace("\n", "\r\n").rstrip()],
    ids=["empty", "comment", "comment-no-newline", "plain", "no-newline", "crlf", "crlf-no-newline"],
)
def test_there_and_back(main: Path, tmp_path: Path, text: str) -> None:
    main.write_bytes(text.encode())
    before = files(tmp_path)
    for _ in range(2):
        apply(containerd.install_changes(containerd.find(tmp_path), NAMES))
        assert set(NAMES) < set(containerd._runtimes_in(containerd.find(tmp_path), main.read_text()))
        assert "version = 2\n" in main.read_text()
        assert not needed(containerd.install_changes(containerd.find(tmp_path), NAMES))
    apply(containerd.uninstall_changes(containerd.find(tmp_path)))
    assert files(tmp_path) == before


def test_an_editor_that_changed_the_line_ends(main: Path, tmp_path: Path) -> None:
    main.write_text(V2)
    apply(containerd.install_changes(containerd.find(tmp_path), NAMES))
    main.write_bytes(main.read_text().replace("\n", "\r\n").removesuffix("\r\n").encode())
    apply(containerd.install_changes(containerd.find(tmp_path), NAMES))
    assert main.read_text().count("runtimes.wasmer]") == 1
    apply(containerd.uninstall_changes(containerd.find(tmp_path)))
    assert main.read_bytes() == V2.replace("\n", "\r\n").encode()


def test_what_was_there_first_is_kept(main: Path, tmp_path: Path) -> None:
    """Not what a second install found; and no copy of what is there again."""
    main.write_text(V2)
    copy = main.with_name("config.toml.before-shimd")
    apply(containerd.install_changes(containerd.find(tmp_path), NAMES[:1]))
    apply(containerd.install_changes(containerd.find(tmp_path), NAMES))
    assert copy.read_text() == V2
    main.write_text(main.read_text() + "[timeouts]\n")
    apply(containerd.uninstall_changes(containerd.find(tmp_path)))
    assert copy.read_text() == V2


def test_a_linked_configuration(main: Path, tmp_path: Path) -> None:
    """The file is changed, the link stays; a second install has nothing to do."""
    real = tmp_path / "elsewhere/containerd.toml"
    real.parent.mkdir()
    real.write_text(V2)
    real.chmod(0o640)
    main.symlink_to(real)
    before = files(tmp_path)
    apply(containerd.install_changes(containerd.find(tmp_path), NAMES))
    assert main.is_symlink()
    assert "runtimes.wasmer" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640
    assert not needed(containerd.install_changes(containerd.find(tmp_path), NAMES))
    apply(containerd.uninstall_changes(containerd.find(tmp_path)))
    assert main.is_symlink()
    assert files(tmp_path) == before


def test_a_link_to_nothing(main: Path, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere/containerd.toml"
    main.symlink_to(real)
    apply(containerd.install_changes(containerd.find(tmp_path), NAMES))
    assert "runtimes.wasmer" in real.read_text()
    apply(containerd.uninstall_changes(containerd.find(tmp_path)))
    assert main.is_symlink()
    assert not real.exists()


def test_a_masked_unit(tmp_path: Path) -> None:
    """The link makes way; what it leads to, /dev/null on a node, stays as it is."""
    null = tmp_path / "null"
    null.write_text("")
    unit = tmp_path / "shimd.service"
    unit.symlink_to(null)
    apply([Change(unit, "[Unit]\n")])
    assert not unit.is_symlink()
    assert null.read_text() == ""


def test_no_regular_file(main: Path, tmp_path: Path) -> None:
    main.mkdir()
    with pytest.raises(FailedPrecondition, match=f"{main} cannot be read: Is a directory"):
        containerd.find(tmp_path)


def test_no_text(main: Path, tmp_path: Path) -> None:
    main.write_bytes(b"\xff\xfe")
    with pytest.raises(FailedPrecondition, match=f"{main} is not text"):
        containerd.find(tmp_path)


def test_all_or_nothing(tmp_path: Path) -> None:
    """The last cannot be: a file is where its directory should be."""
    (tmp_path / "text").write_text("before")
    (tmp_path / "text").chmod(0o600)
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "gone").write_bytes(b"\x00")
    before = {**files(tmp_path), "link": os.readlink(tmp_path / "link")}
    changes = [
        Change(tmp_path / "text", "after", backup=True),
        Change(tmp_path / "link", link="elsewhere"),
        Change(tmp_path / "gone"),
        Change(tmp_path / "new/directory/file", "new"),
        Change(tmp_path / "text/file", "no"),
    ]
    with pytest.raises(FailedPrecondition, match="text/file: File exists; all is as it was"), applied(changes):
        raise AssertionError("never reached")
    assert {**files(tmp_path), "link": os.readlink(tmp_path / "link")} == before
    assert (tmp_path / "text").stat().st_mode & 0o777 == 0o600
