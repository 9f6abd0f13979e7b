"""``contrib/kubernetes``: what is given to users is what this API server takes, and the installer does what it says."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.containerd import LAUNCHERS
from tests.kubernetes.cluster import ADDRESS, PROGRAMS, TOKEN, Cluster, until

CONTRIB = Path(__file__).parents[2] / "contrib/kubernetes"
NAMESPACE = "shimd-system"
#: For the tree that an image has: what it is asked to do, done below the test's directory.
SHIMD = """\
#!/bin/sh
command=$1
[ "$command" = doctor ] || set -- "$command" --root "{host}" --config "{host}/config.toml"
echo "$command" >>"{host}/commands"
[ "$command" != upgrade ] || exit 0
exec {program} "$@"
"""


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[None]:
    cluster.kubectl("create", "namespace", NAMESPACE)
    yield
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=true")


@pytest.mark.usefixtures("namespace")
def test_kustomize(cluster: Cluster) -> None:
    said = cluster.kubectl("apply", "--dry-run=server", "-k", CONTRIB / "base").out
    assert "daemonset.apps/shimd-installer created (server dry run)" in said


@pytest.mark.parametrize("example", sorted((CONTRIB / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_examples(cluster: Cluster, example: Path) -> None:
    assert "(server dry run)" in cluster.kubectl("apply", "--dry-run=server", "-f", example).out


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize(
    "flags", [[], ["--set", "runtimes={wasmtime,wasmtime-spin-v2}"], ["--set", "installer.enabled=false"]]
)
def test_helm(cluster: Cluster, flags: list[str]) -> None:
    command = [str(PROGRAMS / "helm"), "template", "shimd", str(CONTRIB / "chart/shimd"), "-n", NAMESPACE, *flags]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    said = cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=made).out
    assert ("daemonset" in said) == ("installer.enabled=false" not in flags)
    assert ("runtimeclass.node.k8s.io/wasmer" in said) == (not any("runtimes=" in flag for flag in flags))
    assert "runtimeclass.node.k8s.io/wasmtime-spin-v2" in said, "with the handler of the base: it cannot be changed"


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("way", ["helm", "kubectl"])
def test_without_runtimeclasses(cluster: Cluster, way: str) -> None:
    """As k3s and rke2 bring them."""
    flags = ["-n", NAMESPACE, "--set", "runtimeClasses.create=false"]
    command = [str(PROGRAMS / "helm"), "template", "shimd", str(CONTRIB / "chart/shimd"), *flags]
    made = (CONTRIB / "base/installer.yaml").read_text()
    if way == "helm":
        made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    said = cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=made).out
    assert "daemonset" in said
    assert "runtimeclass" not in said


@contextmanager
def installer(cluster: Cluster, directory: Path) -> Iterator["subprocess.Popen[str]"]:
    """Running on the node, until it says that it waits; the block ends it."""
    env = {
        "PATH": os.environ["PATH"],
        "SHIMD_TREE": str(directory / "tree"),
        "SHIMD_HOST": str(directory / "host"),
        "SHIMD_ACCOUNT": str(directory / "account"),
        "SHIMD_ENTER": "env",
        "KUBERNETES_SERVICE_HOST": ADDRESS,
        "KUBERNETES_SERVICE_PORT": "6443",
        "NODE_NAME": "node",
        "POD_NAMESPACE": NAMESPACE,
        "DAEMONSET": "shimd-installer",
    }
    command = cluster.node.inside(sys.executable, CONTRIB / "installer/installer.py")
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        said = []
        for line in output:
            said.append(line)
            if "waiting for the end" in line:
                break
        else:
            raise AssertionError("".join(said))
        yield process
        process.send_signal(signal.SIGTERM)
        rest = output.read()
    assert process.wait(60) == 0, rest


@pytest.fixture
def directory(cluster: Cluster, tmp_path: Path) -> Path:
    for name in ("tree/bin", "host", "account"):
        (tmp_path / name).mkdir(parents=True)
    program = tmp_path / "tree/bin/shimd"
    program.write_text(SHIMD.format(host=tmp_path / "host", program=LAUNCHERS / "shimd"))
    program.chmod(0o755)
    (tmp_path / "account/token").write_text(TOKEN)
    (tmp_path / "account/ca.crt").write_bytes((cluster.directory / "certificates/apiserver.crt").read_bytes())
    return tmp_path


def labels(cluster: Cluster) -> str:
    return cluster.kubectl("get", "node", "node", "-o", "jsonpath={.metadata.labels}").out


@pytest.mark.usefixtures("namespace")
def test_the_installer(cluster: Cluster, directory: Path) -> None:
    cluster.kubectl("label", "node", "node", "shimd.io/ready-")
    cluster.kubectl("apply", "-k", CONTRIB / "base")
    cluster.kubectl("patch", "daemonset", "shimd-installer", "-n", NAMESPACE, "-p", NOWHERE)
    host, tree = directory / "host", directory / "tree"
    copied = host / tree.relative_to("/")

    with installer(cluster, directory):
        assert (copied / "bin/shimd").exists()
        assert "runtimes.wasmtime" in (host / "config.toml").read_text()
        assert '"shimd.io/ready":"true"' in labels(cluster)
    assert "runtimes.wasmtime" in (host / "config.toml").read_text(), "a pod that is replaced changes nothing"

    with installer(cluster, directory):
        cluster.kubectl("delete", "daemonset", "shimd-installer", "-n", NAMESPACE, "--wait=true")
        until(lambda: not daemonsets(cluster), "the DaemonSet to go", cluster)
    assert "shimd.io/ready" not in labels(cluster)
    assert not (host / "config.toml").exists()
    assert not copied.exists()
    assert (host / "commands").read_text().split() == [
        *("install", "upgrade", "doctor"),
        *("install", "upgrade", "doctor"),
        "uninstall",
    ]
    cluster.kubectl("label", "node", "node", "shimd.io/ready=true")
    cluster.kubectl("delete", "-k", CONTRIB / "base", "--ignore-not-found", "--wait=false")
    cluster.kubectl("apply", "-f", CONTRIB / "base/runtimeclasses.yaml")


#: No real pod of it: its image is not here.
NOWHERE = '{"spec": {"template": {"spec": {"nodeSelector": {"nowhere": "true"}}}}}'


def daemonsets(cluster: Cluster) -> str:
    return cluster.kubectl("get", "daemonsets", "-n", NAMESPACE, "-o", "name").out
