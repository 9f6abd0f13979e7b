"""The installer on a node with systemd: from a pod's namespaces it enters the node's, and its containerd starts anew.

The node is a machine with its own process 1 and containerd.service; beside it runs an API server. What a kubelet would
do, making the pod, is done by hand: a mount namespace in which ``/host`` is the node's root, and the node's processes.
"""

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.containerd import LAUNCHERS
from tests.e2e.systemd.machine import Machine, booted
from tests.kubernetes.cluster import ADDRESS, PROGRAMS, TOKEN
from tests.kubernetes.test_contrib import CONTRIB, NAMESPACE

DAEMONSET = CONTRIB / "base/installer.yaml"
#: In the image's tree, which a node gets a copy of.
SHIMD = '#!/bin/sh\necho "$@" >>/commands\nexec {program} "$@"\n'
#: What a pod sees, and then the installer as its image's entry point.
POD = """\
set -e
mkdir -p /host && mount --rbind / /host
mount -t tmpfs tmpfs /opt && cp -a /host/image/shimd /opt/shimd
exec python3 {installer}
"""


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """No cluster is needed: the machine is gone at the end."""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    if "SHIMD_TEST_KUBERNETES" not in os.environ or not (PROGRAMS / "kubelet").exists():
        pytest.skip("make test-kubernetes runs these")
    with booted("hybrid") as machine:
        yield machine


@pytest.fixture(scope="module")
def node(machine: Machine) -> Machine:
    """With containerd as a service, and an API server that knows the node."""
    for command in ("link add node0 type bridge", f"addr add {ADDRESS}/24 dev node0", "link set node0 up"):
        machine.run("ip", *command.split())
    machine.run("ip", "route", "add", "default", "dev", "node0")
    tree = machine.root / "image/shimd/bin"
    tree.mkdir(parents=True)
    (tree / "shimd").write_text(SHIMD.format(program=LAUNCHERS / "shimd"))
    (tree / "shimd").chmod(0o755)
    machine.run("systemctl", "start", "containerd.service")
    api(machine)
    kubectl(machine, "apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}})
    kubectl(machine, "apply", "-f", str(DAEMONSET))
    return machine


def api(machine: Machine) -> None:
    directory = machine.root / "api"
    directory.mkdir()
    (directory / "tokens.csv").write_text(f"{TOKEN},admin,1,system:masters\n")
    machine.run("openssl", "genrsa", "-out", "/api/sa.key", "2048")
    service(machine, "etcd", "--data-dir=/api/etcd", "--log-level=error")
    service(
        machine,
        "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        "--authorization-mode=AlwaysAllow",
        "--allow-privileged",
        "--token-auth-file=/api/tokens.csv",
        "--service-account-key-file=/api/sa.key",
        "--service-account-signing-key-file=/api/sa.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.90.0.0/24",
        f"--advertise-address={ADDRESS}",
        "--cert-dir=/api/certificates",
    )
    machine.wait_for("the API server", lambda: "ok" in kubectl(machine, "get", "--raw", "/readyz", check=False))


def service(machine: Machine, name: str, *flags: str) -> None:
    machine.run("systemd-run", f"--unit=test-{name}", str(PROGRAMS / name), *flags)


def kubectl(machine: Machine, *arguments: str, check: bool = True, stdin: object = None) -> str:
    flags = ["-s", f"https://{ADDRESS}:6443", "--insecure-skip-tls-verify", "--token", TOKEN]
    if stdin is not None:
        (machine.root / "api/stdin.json").write_text(json.dumps(stdin))
        arguments = tuple("/api/stdin.json" if word == "-" else word for word in arguments)
    return machine.run(str(PROGRAMS / "kubectl"), *flags, *arguments, check=check)


def installer(machine: Machine) -> "subprocess.Popen[str]":
    """As its pod runs it, in the node's pid namespace (``hostPID``), until it waits."""
    account = machine.root / "account"
    account.mkdir(exist_ok=True)
    (account / "token").write_text(TOKEN)
    (account / "ca.crt").write_bytes((machine.root / "api/certificates/apiserver.crt").read_bytes())
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "SHIMD_ACCOUNT": "/account",
        "KUBERNETES_SERVICE_HOST": ADDRESS,
        "KUBERNETES_SERVICE_PORT": "6443",
        "NODE_NAME": "node",
        "POD_NAMESPACE": NAMESPACE,
        "DAEMONSET": "shimd-installer",
    }
    words = [f"{name}={value}" for name, value in env.items()]
    enter = ["nsenter", "-t", str(machine.pid), "-m", "-u", "-i", "-n", "-p", "-C", "--", "env", "-i", *words]
    script = POD.format(installer=CONTRIB / "installer/installer.py")
    command = [*enter, "unshare", "--mount", "--uts", "--ipc", "--propagation", "private", "sh", "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "waiting for the end" in line:
            return process
    process.wait()
    raise AssertionError("".join(said))


def end(machine: Machine, process: "subprocess.Popen[str]") -> str:
    """As the kubelet ends it; what it said then."""
    (pid,) = machine.run("pgrep", "-f", "^python3 .*installer/installer.py").split()  # in there
    machine.run("kill", pid)
    assert process.stdout is not None
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(60) == 0, rest
    return rest


def labels(machine: Machine) -> str:
    return kubectl(machine, "get", "node", "node", "-o", "jsonpath={.metadata.labels}")


def test_from_a_pod_to_the_node(node: Machine) -> None:
    config = node.root / "etc/containerd/config.toml"
    before, first = config.read_text() if config.exists() else None, node.main_pid("containerd.service")

    process = installer(node)
    second = node.main_pid("containerd.service")
    assert second not in (0, first), "it was started anew, and runs"
    assert "runtimes.wasmtime" in config.read_text()
    assert (node.root / "opt/shimd/bin/shimd").exists(), "the node has the tree, not the pod alone"
    assert (node.root / "usr/local/bin/containerd-shim-wasmtime-v1").exists()
    assert node.show("shimd.socket", "ActiveState") == "active"
    assert '"shimd.io/ready":"true"' in labels(node)
    checks = json.loads(node.run("shimd", "doctor", "--json", check=False))
    assert not [check for check in checks if check["level"] == "problem"]
    assert {check["subject"]: check["found"] for check in checks}["an app on wasmtime"] == "ran in a container"
    end(node, process)
    assert node.main_pid("containerd.service") == second, "a pod that is replaced changes nothing"

    process = installer(node)
    kubectl(node, "delete", "daemonset", "shimd-installer", "-n", NAMESPACE, "--wait=false")
    assert "the node is as it was" in end(node, process)
    assert node.main_pid("containerd.service") not in (0, second)
    assert (config.read_text() if config.exists() else None) == before
    assert not (node.root / "opt/shimd").exists()
    assert not (node.root / "usr/local/bin/containerd-shim-wasmtime-v1").exists()
    assert node.show("shimd.socket", "LoadState") == "not-found"
    assert "shimd.io/ready" not in labels(node)
