"""k3s and rke2: the runtimes are there once, whatever of them they find and write themselves, before us or after."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from shimd.errors import FailedPrecondition
from shimd.launcher.build import ENGINES
from shimd.node import block, configs, containerd
from shimd.node.changes import needed
from tests.e2e.containerd import VERSIONS, Version
from tests.unit.node.rancher import OLD_TYPES, SHIMS, Node, asked, render
from tests.unit.node.support import apply, files, read_by, types

OLD, NEW = VERSIONS
ALL = {"runc": "io.containerd.runc.v2", **{name: SHIMS[name] for name in ENGINES}}
#: A node's kind, and a containerd that reads what it makes.
KINDS = {
    "v2-1": (Node(Path("/"), 2), OLD),
    "v2-2": (Node(Path("/"), 2), NEW),
    "v3": (Node(Path("/"), 3), NEW),
    "v3-imports": (Node(Path("/"), 3, imports=True), NEW),
    "rke2": (Node(Path("/"), 3, imports=True, name="rke2"), NEW),
    "rke2-v2": (Node(Path("/"), 2, name="rke2"), OLD),
}
FOUND = {"none": (), "one": ("wasmtime",), "ours": ENGINES, "all": tuple(SHIMS)}


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Node:
    kind: Node = request.param[0]
    return replace(kind, root=tmp_path)


@pytest.fixture
def version(request: pytest.FixtureRequest, node: Node) -> Version:
    return next(version for kind, version in KINDS.values() if replace(kind, root=node.root) == node)


def install(node: Node) -> containerd.ContainerdConfig:
    config = containerd.find(node.root)
    apply(containerd.install_changes(config, ENGINES))
    return config


@pytest.mark.parametrize(("first", "second"), [("none", "none"), ("none", "ours"), ("one", "all"), ("all", "one")])
def test_once_each(node: Node, first: str, second: str) -> None:
    """By the rules of TOML: k3s renders it at its next start, having found others of them."""
    before, after = FOUND[first], FOUND[second]
    node.start(*before)
    alone = files(node.root)
    install(node)
    found = {*before, *after}
    node.start(*found)
    names = {name for text in written(node) for name in containerd._names(containerd.find(node.root), text)}
    assert names == {"runc", *ENGINES, *found}
    assert not needed(containerd.install_changes(containerd.find(node.root), ENGINES))
    node.start(*before)
    apply(containerd.uninstall_changes(containerd.find(node.root)))
    node.start(*before)
    assert files(node.root) == alone


def written(node: Node) -> list[str]:
    """The files that containerd reads, each of which is TOML."""
    texts = [path.read_text() for path in (node.config, node.dropin) if path.exists()]
    for text in texts:
        configs.table(node.config, text)
    return texts


@pytest.mark.parametrize("found", [(), ("wasmtime",), ENGINES], ids=["none", "one", "ours"])
def test_read_by_their_containerd(node: Node, version: Version, found: tuple[str, ...]) -> None:
    """Before they start again, and after they found our launchers on their PATH."""
    node.start(*found)
    config = install(node)
    if config.template:
        node.config.write_text(containerd.effective(config, ENGINES))
    assert types(read_by(version, node.config)) == ALL
    node.start(*ENGINES)
    runtimes = read_by(version, node.config)
    assert types(runtimes) == ALL
    assert {runtimes[name]["options"]["SystemdCgroup"] for name in ENGINES} == {True}
    annotations = {tuple(runtimes[name]["pod_annotations"] or ()) for name in ENGINES}
    assert annotations == {() if config.template else ("shimd.io/*",)}


@pytest.mark.parametrize("systemd", [True, False])
def test_cgroups_as_they_have_them(node: Node, systemd: bool) -> None:
    node = replace(node, systemd=systemd)
    node.start()
    assert ("SystemdCgroup = true" in install(node).path.read_text()) == systemd


def test_types_of_which_there_is_no_program(node: Node) -> None:
    """k3s before 2024."""
    old = replace(node, types=tuple(OLD_TYPES.items()))
    old.start("wasmtime")
    config = install(node)
    assert "runtimes.wasmtime" not in config.path.read_text()
    assert "runtimes.wasmer]" in config.path.read_text()
    said = f"{node.name} has a runtime wasmtime of its own, of type io.containerd.wasmtime.v2: it is left alone"
    assert containerd.notes(config, ENGINES)[0].startswith(said)


@pytest.mark.parametrize("kind", ["v2-1", "v3"])
def test_an_operators_template(tmp_path: Path, kind: str) -> None:
    """One that has their tables gets ours only if they do not come; one that has not, always; and one of his, never."""
    node = replace(KINDS[kind][0], root=tmp_path)
    node.start()
    plugin = "io.containerd.grpc.v1.cri" if node.version == 2 else "io.containerd.cri.v1.runtime"
    own = f"[plugins.'{plugin}'.containerd.runtimes.'wasmer']\nruntime_type = \"io.containerd.wasmer.v1\"\n"
    whole = node.base(()) + own
    for text in ('{{ template "base" . }}\n' + own, whole):
        node.template.write_text(text)
        node.start()
        install(node)
        for found in ((), ("wasmtime",)):
            node.start(*found)
            assert types(read_by(KINDS[kind][1], node.config)) == ALL
        apply(containerd.uninstall_changes(containerd.find(tmp_path)))
        assert node.template.read_text() == text


def test_what_an_earlier_shimd_has_broken(node: Node, version: Version) -> None:
    """Its tables had no condition, and stood in the template where there are imports, too."""
    node.start()
    config = replace(containerd.find(node.root), path=node.template, template=False)
    text = block.joined('{{ template "base" . }}\n', containerd._tables(config, ENGINES, {}, guarded=False))
    node.template.write_text(text)
    node.start(*ENGINES)
    with pytest.raises(subprocess.CalledProcessError):
        read_by(version, node.config)
    install(node)
    node.start(*ENGINES)
    assert types(read_by(version, node.config)) == ALL
    apply(containerd.uninstall_changes(containerd.find(node.root)))
    assert not node.template.exists()


def test_a_drop_in_of_the_operators(tmp_path: Path) -> None:
    node = Node(tmp_path, 3, imports=True)
    node.start()
    other = node.directory / "config-v3.toml.d/90-mine.toml"
    other.parent.mkdir()
    table = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.wasmer]\nruntime_type = "
    other.write_text(f'{table}"io.containerd.wasmer.v1"\n')
    assert "runtimes.wasmer]" not in install(node).path.read_text()
    apply(containerd.uninstall_changes(containerd.find(tmp_path)))
    assert list(other.parent.iterdir()) == [other]
    other.write_text(f'{table}"io.containerd.other.v1"\n')
    with pytest.raises(FailedPrecondition, match="a runtime wasmer already"):
        containerd.install_changes(containerd.find(tmp_path), ENGINES)


def test_one_that_never_started(tmp_path: Path) -> None:
    """Which version its configuration will have cannot be known."""
    node = Node(tmp_path, 3)
    node.directory.mkdir(parents=True)
    with pytest.raises(FailedPrecondition, match=f"k3s has not written {node.config} yet: start it once"):
        containerd.install_changes(containerd.find(tmp_path), ENGINES)


def test_in_another_data_directory(tmp_path: Path) -> None:
    """Named by --config: what they would write anew is not what is edited."""
    node = Node(tmp_path / "other", 2)
    node.start()
    assert containerd.find(tmp_path, node.config).path == node.template


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go toolchain: the template cannot be rendered by it")
@pytest.mark.parametrize("found", FOUND.values(), ids=FOUND)
def test_as_go_renders_it(tmp_path: Path, found: tuple[str, ...]) -> None:
    node = Node(tmp_path, 3)
    node.start()
    template, base = install(node).path.read_text(), node.base(found)
    done = subprocess.run(
        ["go", "run", "."],
        cwd=Path(__file__).parent / "go",
        input=json.dumps(asked(template, base, found)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == render(template, base, found)
