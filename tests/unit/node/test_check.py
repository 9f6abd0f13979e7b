"""The node's own containerd has the last word: what it refuses is not left on the node."""

import os
from pathlib import Path

import pytest

from shimd.cli.node import do_install, do_uninstall
from shimd.errors import FailedPrecondition
from shimd.launcher.build import ENGINES
from shimd.node import check, doctor
from shimd.node.distributions import PATH
from shimd.node.install import Node
from tests.e2e.containerd import LAUNCHERS, VERSIONS, Version
from tests.unit.node.rancher import Node as Rancher
from tests.unit.node.support import files

OLD, NEW = VERSIONS
WRONG = 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = 7\n'
RANCHER = "var/lib/rancher/k3s/data/current/bin/containerd"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.delenv("CONTAINERD_ADDRESS", raising=False)
    (tmp_path / "etc/systemd").mkdir(parents=True)
    return Node(tmp_path, runtimes=ENGINES, programs=LAUNCHERS)


def put(node: Node, path: str, version: Version) -> None:
    """The node's own containerd."""
    program = node.root / path
    program.parent.mkdir(parents=True)
    program.symlink_to(version.program("containerd"))


def install(node: Node) -> None:
    do_install(node, dry_run=False, restart=False)


def uninstall(node: Node) -> None:
    do_uninstall(node, dry_run=False, restart=False)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_accepted(node: Node, version: Version, capsys: pytest.CaptureFixture[str]) -> None:
    put(node, "usr/bin/containerd", version)
    before = files(node.root)
    install(node)
    assert f"wrote {node.root}/etc/containerd/config.toml" in capsys.readouterr().out
    install(node)
    said = capsys.readouterr()
    assert said.out.startswith("nothing to do\n")
    uninstall(node)
    assert capsys.readouterr().err == said.err == ""
    kept = {path: text for path, text in files(node.root).items() if text is not None}
    assert kept == {path: text for path, text in before.items() if text is not None}


@pytest.mark.parametrize(
    ("version", "reason"),
    [(OLD, "Can't convert 7(int64) to string"), (NEW, "cannot decode TOML integer into string")],
    ids=["1.6", "2"],
)
def test_refused(node: Node, version: Version, reason: str) -> None:
    """All is put back: links, units, directories; and its own words are told."""
    put(node, "usr/bin/containerd", version)
    (node.root / "etc/containerd").mkdir()
    (node.root / "etc/containerd/config.toml").write_text(WRONG)
    before = files(node.root)
    with pytest.raises(FailedPrecondition) as caught:
        install(node)
    assert str(caught.value).startswith("containerd refuses its configuration, and all is as it was: ")
    assert str(caught.value).endswith(reason)
    assert files(node.root) == before


def test_one_that_does_not_know_the_version(node: Node) -> None:
    """1.6 takes it, and sees nothing of it; 1.7 says what it expected."""
    put(node, "usr/bin/containerd", OLD)
    (node.root / "etc/containerd").mkdir()
    (node.root / "etc/containerd/config.toml").write_text("version = 3\n")
    before = files(node.root)
    with pytest.raises(FailedPrecondition, match=r"containerd (does not see the runtime slight|refuses its)"):
        install(node)
    assert files(node.root) == before


@pytest.mark.parametrize(("rancher", "version"), [(2, OLD), (2, NEW), (3, NEW)], ids=["v2-1.6", "v2-2", "v3"])
@pytest.mark.parametrize("imports", [False, True])
def test_what_a_template_becomes(node: Node, rancher: int, version: Version, imports: bool) -> None:
    """k3s: its last rendering with the block's tables; wrong in the template, or in what k3s makes of it."""
    put(node, RANCHER, version)
    k3s = Rancher(node.root, rancher, imports=imports)
    k3s.start("wasmtime", "wws")
    before = files(node.root)
    install(node)
    uninstall(node)
    assert files(node.root).keys() - before.keys() <= {str(node.root / "etc/systemd/system"), *parents(node.root)}
    k3s.config.write_text(k3s.config.read_text().replace('"overlayfs"', "7"))
    before = files(node.root)
    with pytest.raises(FailedPrecondition, match="containerd refuses its configuration"):
        install(node)
    assert files(node.root) == before


def parents(root: Path) -> set[str]:
    return {str(root / path) for path in ("usr", "usr/local", "usr/local/bin")}


def test_an_uninstall_that_is_refused(node: Node) -> None:
    put(node, "usr/bin/containerd", OLD)
    install(node)
    config = node.root / "etc/containerd/config.toml"
    config.write_text(config.read_text() + WRONG.partition("\n")[2])
    before = files(node.root)
    with pytest.raises(FailedPrecondition, match="containerd refuses"):
        uninstall(node)
    assert files(node.root) == before


def test_none_to_ask(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    """Said, and not guessed: the one of this machine is not the node's."""
    Rancher(node.root, 3).start()
    install(node)
    said = "shimd: no containerd of k3s was found on this node: its configuration was not checked\n"
    assert capsys.readouterr().err == said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another")
def test_another_user(node: Node) -> None:
    """One sentence, of what is in a directory that is root's."""
    Rancher(node.root, 3).start()
    node.root.chmod(0o755)
    (node.root / "var/lib/rancher/k3s/agent").chmod(0o700)
    try:
        os.seteuid(65534)
        with pytest.raises(FailedPrecondition, match="Permission denied"):
            install(node)
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    "text",
    [
        '# of a package\ndisabled_plugins = ["cri"]\n#root = "/var/lib/containerd"\n',
        'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n',
        'version = 3\ndisabled_plugins = ["io.containerd.cri.v1.runtime"]\n',
    ],
)
def test_a_containerd_without_cri(node: Node, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """As Docker's packages configure it, among others: the launchers are all that is needed."""
    main = node.root / "etc/containerd/config.toml"
    main.parent.mkdir()
    main.write_text(text)
    before = files(main.parent)
    install(node)
    assert capsys.readouterr().err.startswith(f"shimd: {main} turns containerd's CRI plugin off: it is left as it is")
    assert (node.root / "usr/local/bin/containerd-shim-wasmtime-v1").is_symlink()
    uninstall(node)
    assert files(main.parent) == before


def test_one_that_does_not_run(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    program = node.root / "usr/bin/containerd"
    program.parent.mkdir(parents=True)
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o755)
    install(node)
    assert f"{program} does not run here, so that containerd's configuration was not checked" in capsys.readouterr().err


def test_imports_are_those_of_the_nodes_tree(node: Node) -> None:
    """Paths in the file are the node's, not this machine's."""
    put(node, "usr/bin/containerd", NEW)
    directory = node.root / "etc/containerd/conf.d"
    directory.mkdir(parents=True)
    main = node.root / "etc/containerd/config.toml"
    main.write_text('version = 3\nimports = [\n  "/etc/containerd/conf.d/*.toml",\n]\n')
    install(node)
    assert (directory / "shimd.toml").exists()
    uninstall(node)
    (directory / "other.toml").write_text(WRONG)
    with pytest.raises(FailedPrecondition, match="containerd refuses"):
        install(node)
    assert not (directory / "shimd.toml").exists()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_the_shim_of_somebody_else_stays(node: Node, tmp_path: Path, kind: str) -> None:
    """runwasi's, say, on a node where it was put by hand."""
    path = node.root / "usr/local/bin/containerd-shim-wasmtime-v1"
    path.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "other").write_text("theirs")
    if kind == "file":
        path.write_text("theirs")
    else:
        path.symlink_to(tmp_path / "other")
    with pytest.raises(FailedPrecondition, match=r"wasmtime-v1 is there, and not shimd's: move it away"):
        install(node)
    assert path.read_text() == "theirs"
    assert not (node.root / "usr/local/bin/shimd").exists()


@pytest.mark.parametrize("name", ["shimd.service", "shimd.socket"])
@pytest.mark.parametrize("kind", ["another's", "masked"])
def test_the_unit_of_somebody_else_stays(node: Node, name: str, kind: str) -> None:
    unit = node.root / "etc/systemd/system" / name
    unit.parent.mkdir()
    if kind == "masked":
        unit.symlink_to("/dev/null")
    else:
        unit.write_text("[Service]\nExecStart=/opt/other/shimd --server\n[Socket]\nListenStream=/run/other.sock\n")
    before = files(node.root)
    with pytest.raises(FailedPrecondition, match=f"{name} is there, and not shimd's: move it away"):
        install(node)
    uninstall(node)
    assert files(node.root) == before


def test_a_unit_of_an_older_shimd_is_replaced(node: Node) -> None:
    """As of another path, or edited."""
    units = node.root / "etc/systemd/system"
    units.mkdir()
    (units / "shimd.service").write_text('[Service]\nType=notify\nExecStart="/opt/a b/bin/shimd" serve\n')
    (units / "shimd.socket").write_text("[Socket]\nListenStream=/run/elsewhere/launch.sock\n")
    install(node)
    assert f"ExecStart={LAUNCHERS}/shimd serve" in (units / "shimd.service").read_text()
    uninstall(node)
    assert not list(units.iterdir())


#: What k3s brings: a containerd that tells its version, and is otherwise the one given.
BROUGHT = """\
#!/bin/sh
[ "$1" = --version ] && exec echo "containerd github.com/k3s-io/containerd v{version} 1234abcd"
exec {program} "$@"
"""


@pytest.mark.parametrize(("version", "has_base"), [("1.7.1-k3s1", False), ("1.6.19-k3s1", False), ("1.7.3-k3s2", True)])
def test_a_k3s_without_a_base_template(node: Node, version: str, has_base: bool) -> None:
    """Of before September 2023: it would not start. With a whole template of the operator's it is the same."""
    program = node.root / RANCHER
    program.parent.mkdir(parents=True)
    program.write_text(BROUGHT.format(version=version, program=OLD.program("containerd")))
    program.chmod(0o755)
    k3s = Rancher(node.root, 2)
    k3s.start()
    before = files(node.root)
    if has_base:
        install(node)
        return
    with pytest.raises(FailedPrecondition, match='this k3s is too old: it has no template "base"'):
        install(node)
    assert files(node.root) == before
    k3s.template.write_text(k3s.base(()))
    install(node)


def test_one_whose_dump_is_none(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    """Something else by the name of containerd, say."""
    program = node.root / "usr/bin/containerd"
    program.parent.mkdir(parents=True)
    for said in ("usage: containerd", "plugins = 7", "[plugins]\nx = 1", "[plugins.x]\ncontainerd = 1"):
        program.write_text(f"#!/bin/sh\necho '{said}'\n")
        program.chmod(0o755)
        install(node)
        assert f"what {program} prints as its configuration is not understood" in capsys.readouterr().err
        uninstall(node)


def test_one_that_ends_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the one that is installed is asked."""
    monkeypatch.setattr(check, "process", lambda _address: Path("/proc/4194305"))
    assert check._executable("/run/containerd/containerd.sock") is None
    monkeypatch.setattr(doctor, "_process", lambda: Path("/proc/4194305"))
    assert doctor._containerd_command() is None
    assert doctor._path_of_containerd() == PATH


def test_a_link_of_an_installation_that_is_gone_is_replaced(node: Node, tmp_path: Path) -> None:
    path = node.root / "usr/local/bin/containerd-shim-wasmtime-v1"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(tmp_path / "gone/containerd-shim-wasmtime-v1")
    install(node)
    assert path.exists()
