"""MicroK8s, k0s, and what is the same for all: where the block goes, and that nothing stays of it."""

from pathlib import Path

import pytest

from shimd.errors import FailedPrecondition
from shimd.launcher.build import ENGINES
from shimd.launcher.names import runtime_type
from shimd.node import containerd
from shimd.node.install import Node, install
from tests.e2e.containerd import LAUNCHERS, VERSIONS, Version
from tests.unit.node.rancher import Node as Rancher
from tests.unit.node.support import apply, files, read_by, types

OLD, NEW = VERSIONS
ALL = {"runc": "io.containerd.runc.v2", **{name: runtime_type(name) for name in ENGINES}}
#: As on a node, shortened; the program that starts containerd puts the values in.
MICROK8S = """\
# Use config version 2 to enable new configuration fields.
version = 2
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "${SNAPSHOTTER}"
    default_runtime_name = "${RUNTIME}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "${RUNTIME_TYPE}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
      runtime_type = "io.containerd.kata.v2"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "${SNAP_DATA}/args/certs.d"
"""
K0S = """\
# k0s_managed=true
# Anything else is k0s's.
imports = ["/etc/k0s/containerd.d/*.toml"]
version = 3
[plugins]
  [plugins."io.containerd.cri.v1.images"]
    [plugins."io.containerd.cri.v1.images".pinned_images]
      sandbox = "registry.invalid/pause:3"
"""
#: Before 1.36: it merges the files of its directory, and imports the result.
OLD_K0S = '# k0s_managed=true\nversion = 2\nimports = [\n  "/run/k0s/containerd-cri.toml",\n]\n'
MERGED = """\
version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = true
"""


def write(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = root / PLACES[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


PLACES = {
    "microk8s": "var/snap/microk8s/current/args/containerd-template.toml",
    "k0s": "etc/k0s/containerd.toml",
    "merged": "run/k0s/containerd-cri.toml",
    "dropin": "etc/k0s/containerd.d/50-mine.toml",
    "plain": "etc/containerd/config.toml",
}
OURS = "etc/k0s/containerd.d/shimd.toml"


@pytest.mark.parametrize(
    ("texts", "path", "name", "version"),
    [
        ({"microk8s": MICROK8S}, PLACES["microk8s"], "MicroK8s", 2),
        ({"microk8s": MICROK8S.rstrip("\n")}, PLACES["microk8s"], "MicroK8s", 2),
        ({"k0s": K0S}, OURS, "k0s", 3),
        ({"k0s": OLD_K0S, "merged": MERGED}, OURS, "k0s", 2),
        ({"k0s": K0S.partition("\n")[2].replace("imports", "#")}, PLACES["k0s"], "k0s", 3),
        ({"k0s": K0S, "plain": "version = 2\n"}, OURS, "k0s", 3),
        ({"plain": "version = 2\n"}, PLACES["plain"], "containerd", 2),
    ],
    ids=["microk8s", "microk8s-no-newline", "k0s", "k0s-1.35", "k0s-unmanaged", "k0s-and-docker", "plain"],
)
def test_there_and_back(tmp_path: Path, texts: dict[str, str], path: str, name: str, version: int) -> None:
    write(tmp_path, **texts)
    (tmp_path / OURS).parent.mkdir(parents=True, exist_ok=True) if "k0s" in texts else None
    before = files(tmp_path)
    config = containerd.find(tmp_path)
    assert (config.path, config.distribution.name, config.version) == (tmp_path / path, name, version)
    assert containerd.find(tmp_path, tmp_path / PLACES[next(iter(texts))]) == config
    for _ in range(2):
        apply(containerd.install_changes(containerd.find(tmp_path), ENGINES))
    text = (tmp_path / path).read_text()
    assert text.count("runtimes.wasmtime]") == 1
    assert f"version = {version}\n" in text
    apply(containerd.uninstall_changes(containerd.find(tmp_path)))
    assert files(tmp_path) == before


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_microk8s(tmp_path: Path, version: Version) -> None:
    write(tmp_path, microk8s=MICROK8S)
    config = containerd.find(tmp_path)
    apply(containerd.install_changes(config, ENGINES))
    rendered = tmp_path / "containerd.toml"
    rendered.write_text(config.path.read_text().replace("${RUNTIME_TYPE}", "io.containerd.runc.v2"))
    assert types(read_by(version, rendered)) == {**ALL, "kata": "io.containerd.kata.v2"}


def test_k0s(tmp_path: Path) -> None:
    write(tmp_path, k0s=K0S.replace("/etc", f"{tmp_path}/etc"), dropin="version = 3\n")
    config = containerd.find(tmp_path)
    apply(containerd.install_changes(config, ENGINES))
    assert types(read_by(NEW, config.main)) == ALL


def test_k0s_before_its_containerd_2(tmp_path: Path) -> None:
    """What it merges into its own is a file of its own; cgroups are as in the result."""
    write(tmp_path, k0s=OLD_K0S, merged=MERGED)
    config = containerd.find(tmp_path)
    apply(containerd.install_changes(config, ENGINES))
    assert set(read_by(OLD, config.path)) == set(ENGINES)
    assert config.main == config.path
    assert "SystemdCgroup = true" in config.path.read_text()


@pytest.mark.parametrize("name", ["merged", "dropin"])
def test_k0s_of_an_operator(tmp_path: Path, name: str) -> None:
    """A runtime that another of its files has."""
    table = '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.wasmer]\nruntime_type = "{}"\n'
    main = K0S.replace("/etc/k0s/containerd.d/*", "/run/k0s/*")
    write(tmp_path, k0s=main, **{name: table.format("io.containerd.wasmer.v1")})
    apply(containerd.install_changes(containerd.find(tmp_path), ENGINES))
    assert "runtimes.wasmer]" not in (tmp_path / OURS).read_text()
    write(tmp_path, **{name: table.format("else")})
    with pytest.raises(FailedPrecondition, match="a runtime wasmer already, of type else"):
        containerd.install_changes(containerd.find(tmp_path), ENGINES)


def test_k0s_that_never_started(tmp_path: Path) -> None:
    (tmp_path / OURS).parent.mkdir(parents=True)
    with pytest.raises(FailedPrecondition, match=r"k0s has not written .*containerd.toml yet: start it once"):
        containerd.install_changes(containerd.find(tmp_path), ENGINES)


def test_units_know_the_distributions_programs(tmp_path: Path) -> None:
    """Its runc, for native containers: systemd's PATH has no such directory."""
    (tmp_path / "etc/systemd").mkdir(parents=True)
    Rancher(tmp_path, 3).start()
    changes = install(Node(tmp_path, runtimes=ENGINES, programs=LAUNCHERS)).changes
    unit = next(change.text for change in changes if change.path.name == "shimd.service") or ""
    assert f"ExecStart={LAUNCHERS}/shimd serve\nEnvironment=PATH=/usr/local/sbin:" in unit
    assert ":/var/lib/rancher/k3s/data/current/bin\n" in unit
    assert "Before=k3s.service\nBefore=k3s-agent.service\n" in unit
