"""What ``shimd uninstall`` leaves: named, and taken by ``--purge``, with nothing of somebody else's."""

from pathlib import Path

import pytest

from shimd.cli.node import do_install, do_uninstall
from shimd.engines.registry import engine_names
from shimd.errors import FailedPrecondition, InvalidArgument
from shimd.node import leftovers
from shimd.node.install import Node, uninstall
from tests.e2e.containerd import LAUNCHERS
from tests.unit.node.support import files


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.delenv("CONTAINERD_ADDRESS", raising=False)
    root = tmp_path / "node"
    (root / "etc/systemd").mkdir(parents=True)
    (root / "etc/containerd").mkdir()
    return Node(root, programs=LAUNCHERS)


@pytest.fixture
def config(node: Node) -> Path:
    """One that is changed after the installation: its copy is another, and stays."""
    path = node.root / "etc/containerd/config.toml"
    path.write_text("version = 2\n")
    do_install(node, dry_run=False, restart=False)
    path.write_text(f"# an operator's\n{path.read_text()}")
    return path


def test_named_and_left(node: Node, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    do_uninstall(node, dry_run=False, restart=False)
    copy = config.with_name("config.toml.before-shimd")
    said = capsys.readouterr().out
    assert f"left {copy}: containerd's configuration before install" in said
    assert said.endswith("shimd uninstall --purge removes what is left\n")
    assert list(files(node.root / "etc/containerd")) == [str(config), str(copy)]


def test_purged(node: Node, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dropins = node.root / "etc/systemd/system/shimd.service.d"
    dropins.mkdir()
    (dropins / "limits.conf").write_text("[Service]\n")
    do_uninstall(node, dry_run=True, restart=False, purge=True)
    assert f"would remove {dropins}: " in capsys.readouterr().out
    assert dropins.exists()

    do_uninstall(node, dry_run=False, restart=False, purge=True)
    said = capsys.readouterr().out
    assert f"removed {dropins}: " in said and "--purge" not in said
    assert not dropins.exists()
    assert list(files(node.root / "etc/containerd")) == [str(config)]
    do_uninstall(node, dry_run=False, restart=False, purge=True)
    assert capsys.readouterr().out == "nothing to do\n"


def test_links_of_another_installation_stay(node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are its own to remove, and ``--purge`` leaves them, too."""
    other = tmp_path / "other/bin"
    other.mkdir(parents=True)
    for name in ("shimd", "shimd-launcher"):
        (other / name).write_text("")
    link = node.root / "usr/local/bin/shimd"
    link.parent.mkdir(parents=True)
    link.symlink_to(other / "shimd")
    do_uninstall(node, dry_run=False, restart=False, purge=True)
    assert f"left {link}: another installation's" in capsys.readouterr().out
    assert link.is_symlink()


def test_a_part_is_not_purged(node: Node) -> None:
    part = Node(node.root, programs=LAUNCHERS, runtimes=engine_names()[:1])
    with pytest.raises(InvalidArgument, match="--purge is of all that there is"):
        do_uninstall(part, dry_run=False, restart=False, purge=True)


@pytest.mark.parametrize("foreign", ["", "notes", "wasmtime/notes"])
def test_the_modules(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: str) -> None:
    """All of them, and nothing that somebody else keeps in that directory."""
    cache = tmp_path / "cache"
    for name in ("wasmtime/1/one/artifact", "wasmtime/2/two/artifact", "spin/1/tmp.3/part"):
        (cache / name).parent.mkdir(parents=True)
        (cache / name).write_text("")
    if foreign:
        (cache / foreign).write_text("somebody's")
    monkeypatch.setenv("SHIMD_CACHE_DIR", str(cache))
    monkeypatch.setenv("SHIMD_STATE_DIR", str(tmp_path / "none"))
    plan = uninstall(node)
    monkeypatch.setattr(Node, "is_this_machine", True)
    (found,) = leftovers.left(plan, None)
    assert str(found) == f"{cache}: 3 compiled modules"
    if foreign:
        with pytest.raises(FailedPrecondition, match="what is not shimd's"):
            found.purge()
        assert [name for name, text in files(cache).items() if text is not None] == [str(cache / foreign)]
    else:
        found.purge()
        assert not cache.exists()


def test_a_restart_that_cannot_be_had_is_refused_first(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(node.root)
    for command in (do_install, do_uninstall):
        with pytest.raises(FailedPrecondition, match="no systemd here"):
            command(node, dry_run=False, restart=True)
    assert files(node.root) == before
