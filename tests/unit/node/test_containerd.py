"""containerd's configuration as ``shimd install`` leaves it, and as both containerds then read it."""

import tomllib
from pathlib import Path

import pytest

from shimd.errors import FailedPrecondition, InvalidArgument
from shimd.node import containerd
from shimd.node.changes import needed
from shimd.node.containerd import BEGIN, END
from tests.e2e.containerd import VERSIONS, Version
from tests.unit.node.support import apply, read_by, types

NAMES = ("wasmer", "wasmtime")
EMPTY = "version = 2\n"
#: As kubeadm's users have it, with comments and an order of its own.
V2 = """\
# managed by hand
version = 2
oom_score = -999

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.invalid/pause:3"   # pinned
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = true

[debug]
  level = "info"
"""
V3 = V2.replace("version = 2", "version = 3").replace("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
V3 = V3.replace('  sandbox_image = "registry.invalid/pause:3"   # pinned\n', "  max_container_log_line_size = 77\n")
OLD, NEW = VERSIONS


@pytest.fixture
def main(tmp_path: Path) -> Path:
    path = tmp_path / "etc/containerd/config.toml"
    path.parent.mkdir(parents=True)
    return path


def installed(root: Path) -> containerd.ContainerdConfig:
    """Install below a root, twice: the second time there is nothing to do."""
    config = containerd.find(root)
    apply(containerd.install_changes(config, NAMES))
    config = containerd.find(root)
    assert not needed(containerd.install_changes(config, NAMES))
    return config


ALL = {"runc": "io.containerd.runc.v2", **{name: f"io.containerd.{name}.v1" for name in NAMES}}


@pytest.mark.parametrize(
    ("text", "version"),
    [(EMPTY, OLD), (EMPTY, NEW), (V2, OLD), (V2, NEW), (V3, NEW), ("version = 4\n", NEW)],
    ids=["empty-1.6", "empty-2", "v2-1.6", "v2-2", "v3-2", "v4-2"],
)
def test_both_know_all_runtimes(main: Path, tmp_path: Path, text: str, version: Version) -> None:
    """And runc still, which 1.6 forgets if a file names other runtimes only."""
    main.write_text(text)
    assert types(read_by(version, installed(tmp_path).path)) == ALL


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_without_a_configuration(main: Path, tmp_path: Path, version: Version) -> None:
    config = installed(tmp_path)
    assert types(read_by(version, config.path)) == ALL
    apply(containerd.uninstall_changes(config))
    assert not main.exists()


@pytest.mark.parametrize("text", [EMPTY, V2, V3, V2.rstrip("\n")], ids=["empty", "v2", "v3", "no-newline"])
def test_uninstalled_to_the_byte(main: Path, tmp_path: Path, text: str) -> None:
    main.write_text(text)
    main.chmod(0o640)
    config = installed(tmp_path)
    assert main.read_text().startswith(text)
    assert main.with_name("config.toml.before-shimd").read_text() == text
    assert main.stat().st_mode & 0o777 == 0o640
    apply(containerd.uninstall_changes(config))
    assert main.read_text() == text
    assert not needed(containerd.uninstall_changes(config))


@pytest.mark.parametrize(("text", "version"), [(V2, OLD), (V3, NEW)], ids=["1.6", "2"])
def test_what_stood_there_stands(main: Path, tmp_path: Path, text: str, version: Version) -> None:
    main.write_text(text)
    installed(tmp_path)
    runtimes = read_by(version, main)
    assert runtimes["runc"]["options"]["SystemdCgroup"] is True
    assert runtimes["wasmer"]["options"]["SystemdCgroup"] is True


def test_an_import_that_replaces_the_section_is_the_one_to_edit(main: Path, tmp_path: Path) -> None:
    """Version 2: written into the main file, containerd 1.6 would not see it."""
    imported = main.parent / "cri.toml"
    imported.write_text(V2)
    main.write_text(f'version = 2\nimports = ["{imported}"]\n')
    config = containerd.find(Path("/"), main)
    assert config.path == imported
    apply(containerd.install_changes(config, NAMES))
    assert types(read_by(OLD, main)) == ALL


def test_a_directory_of_imports_gets_a_file(main: Path, tmp_path: Path) -> None:
    """Version 3: merged key by key."""
    (main.parent / "conf.d").mkdir()
    text = V3.replace("oom_score = -999", f'imports = ["{main.parent}/conf.d/*.toml"]')
    main.write_text(text)
    config = containerd.find(Path("/"), main)
    assert config.path == main.parent / "conf.d/shimd.toml"
    apply(containerd.install_changes(config, NAMES))
    assert main.read_text() == text
    found = read_by(NEW, main)
    assert types(found) == ALL
    apply(containerd.uninstall_changes(config))
    assert not config.path.exists()


def test_an_operators_own_runtime_is_left_alone(main: Path, tmp_path: Path) -> None:
    own = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.wasmer]\nruntime_type = "io.containerd.wasmer.v1"\n'
    main.write_text(V2 + own)
    installed(tmp_path)
    assert main.read_text().count("runtimes.wasmer]") == 1
    assert types(read_by(OLD, main)) == ALL


@pytest.mark.parametrize("name", ["k3s", "rke2"])
@pytest.mark.parametrize(("version", "template"), [(2, "config.toml.tmpl"), (3, "config-v3.toml.tmpl")])
def test_a_generated_configuration(tmp_path: Path, name: str, version: int, template: str) -> None:
    directory = tmp_path / f"var/lib/rancher/{name}/agent/etc/containerd"
    directory.mkdir(parents=True)
    (directory / "config.toml").write_text(f"version = {version}\n")
    config = installed(tmp_path)
    assert (config.path, config.distribution.name) == (directory / template, name)
    text = config.path.read_text()
    assert text.startswith('{{ template "base" . }}\n' + BEGIN)
    assert set(tomllib.loads(text.partition("\n")[2])["plugins"]) == {
        "io.containerd.grpc.v1.cri" if version == 2 else "io.containerd.cri.v1.runtime"
    }
    apply(containerd.uninstall_changes(config))
    assert not config.path.exists()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("version = [\n", "not valid TOML"),
        ("version = 1\n", "version 1"),
        ("version = 9\n", "version 9"),
        ("[debug]\n", "version 1"),
        ("version = 2\nplugins = 7\n", "plugins is not a table"),
        ('version = 2\nplugins = {"io.containerd.grpc.v1.cri" = {}}\n', "no room"),
        (f"version = 2\n{BEGIN}\n", "one of the marks"),
    ],
)
def test_refused(main: Path, tmp_path: Path, text: str, word: str) -> None:
    """In one sentence that names the file, which stays as it was."""
    main.write_text(text)
    with pytest.raises(InvalidArgument, match=word) as caught:
        installed(tmp_path)
    assert str(main) in str(caught.value)
    assert main.read_text() == text


def test_somebody_elses_runtime_of_that_name(main: Path, tmp_path: Path) -> None:
    own = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.wasmer]\nruntime_type = "io.containerd.other.v1"\n'
    main.write_text(V2 + own)
    with pytest.raises(FailedPrecondition, match=r"a runtime wasmer already, of type io\.containerd\.other\.v1"):
        installed(tmp_path)


def test_the_block_may_stand_anywhere(main: Path, tmp_path: Path) -> None:
    """Whatever an operator adds after it."""
    main.write_text(V2)
    config = installed(tmp_path)
    main.write_text(main.read_text() + "[timeouts]\n")
    assert END in main.read_text()
    apply(containerd.uninstall_changes(config))
    assert main.read_text() == V2 + "[timeouts]\n"
