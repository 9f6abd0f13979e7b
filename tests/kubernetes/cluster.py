"""A Kubernetes cluster of one node: control plane, kubelet and containerd, in namespaces of their own.

The node has a network namespace, and a mount namespace in which the sysctls that a kubelet insists on setting are plain
files: this machine's own stay as they are. All state is below one temporary directory.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.e2e import leftovers
from tests.e2e.containerd import LAUNCHERS, REPOSITORY, VERSIONS, Result, Version
from tests.e2e.cri import CriContainerd

PROGRAMS = REPOSITORY / ".cache/kubernetes"
#: Of the bridge that is the node's own address; pods are on another (``cri.py``).
ADDRESS = "10.89.0.1"
#: Where pods' addresses are from (``cri.py``); each reaches the first of them, which is the node's.
PODS, GATEWAY = "10.88.0.0/16", "10.88.0.1"
TOKEN = "test-admin"
PATIENCE = 120
#: What a kubelet writes at its start (k8s.io/kubernetes, pkg/kubelet/cm, setupKernelTunables).
_SYSCTLS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}


#: In a launcher's place: dies instead of it or after it, once, if there is a file that says so.
_LAUNCHER = """\
#!/bin/sh
rm "{directory}/before" 2>/dev/null && kill -9 $$
rm "{directory}/after" 2>/dev/null && {{ {program} "$@" >/dev/null; kill -9 $$; }}
exec {program} "$@"
"""


class Node(CriContainerd):
    """containerd 2.x, with a mount namespace in which a kubelet may live, too."""

    def __init__(self, version: Version, directory: Path) -> None:
        super().__init__(version, directory)
        launchers = directory / "launchers"
        launchers.mkdir()
        for program in LAUNCHERS.glob("containerd-shim-*"):
            stand_in = launchers / program.name
            stand_in.write_text(_LAUNCHER.format(directory=launchers, program=program))
            stand_in.chmod(0o755)
        self.env["PATH"] = f"{launchers}:{self.env['PATH']}"

    def _hold(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["unshare", "--net", "--mount", "--propagation", "private", "sleep", "infinity"])

    def _enter(self) -> list[str]:
        spaces = [f"--{name}=/proc/{self._holder.pid}/ns/{file}" for name, file in (("net", "net"), ("mount", "mnt"))]
        return ["nsenter", *spaces, f"--wd={self.directory}", "--"]

    def prepare(self) -> None:
        """The node's address, and its sysctls."""
        self._wait_for_network()
        for command in (
            ["ip", "link", "add", "node0", "type", "bridge"],
            ["ip", "addr", "add", f"{ADDRESS}/24", "dev", "node0"],
            ["ip", "link", "set", "node0", "up"],
            ["ip", "route", "add", "default", "dev", "node0"],
        ):
            subprocess.run(self.inside(*command), check=True)
        for name, value in _SYSCTLS.items():
            file = self.directory / f"sysctl-{name.replace('/', '-')}"
            file.write_text(f"{value}\n")
            subprocess.run(self.inside("mount", "--bind", file, f"/proc/sys/{name}"), check=True)


class Cluster:
    """Started by :func:`running`."""

    def __init__(self, node: Node) -> None:
        self.node, self.directory = node, node.directory
        self.kubeconfig = self.directory / "kubeconfig"
        self.cgroup = f"shimd-kubernetes-{os.getpid()}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    # Programs

    def start(self, name: str, *arguments: object) -> None:
        """Start a program in the node; its log is ``NAME.log``."""
        program = PROGRAMS / name
        with open(self.directory / f"{name}.log", "ab") as log:
            self._processes[name] = subprocess.Popen(
                self.node.inside(program, *arguments), stdout=log, stderr=log, env=self.node.env, start_new_session=True
            )

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        process = self._processes.pop(name)
        process.send_signal(number)
        process.wait(PATIENCE)

    def up(self) -> None:
        """Until the node is ready."""
        self._keys()
        self.start("etcd", "--data-dir", self.directory / "etcd", "--log-level", "error")
        self._start_control_plane()
        until(lambda: self.kubectl("get", "--raw", "/readyz", check=False).out == "ok", "the API server", self)
        self.start_kubelet()
        until(lambda: "True" in self.kubectl("get", "nodes", "-o", _READY, check=False).out, "the node", self)
        self.start_proxy()
        until(lambda: self.kubectl("get", "sa", "default", check=False).code == 0, "the service account", self)

    def down(self) -> None:
        self.kubectl("delete", "pods,deployments", "--all", "--grace-period=0", "--force", check=False)
        for name in reversed(list(self._processes)):
            self.stop(name)

    def _keys(self) -> None:
        subprocess.run(
            ["openssl", "genrsa", "-out", self.directory / "sa.key", "2048"], check=True, capture_output=True
        )
        (self.directory / "tokens.csv").write_text(f"{TOKEN},admin,1,system:masters\n")
        self.kubeconfig.write_text(json.dumps(_kubeconfig()))

    def _start_control_plane(self) -> None:
        directory = self.directory
        self.start(
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            "--authorization-mode=AlwaysAllow",
            "--allow-privileged",
            f"--token-auth-file={directory}/tokens.csv",
            f"--service-account-key-file={directory}/sa.key",
            f"--service-account-signing-key-file={directory}/sa.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.90.0.0/24",
            f"--advertise-address={ADDRESS}",
            f"--cert-dir={directory}/certificates",
            "--kubelet-preferred-address-types=InternalIP",
        )
        self.start(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={directory}/sa.key",
            f"--root-ca-file={directory}/certificates/apiserver.crt",
            "--use-service-account-credentials=false",
            "--leader-elect=false",
        )
        self.start("kube-scheduler", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false")

    def start_kubelet(self) -> None:
        for root in hierarchies():
            (root / self.cgroup).mkdir(exist_ok=True)
        config = self.directory / "kubelet.json"
        config.write_text(json.dumps(_kubelet(self)))
        self.start(
            "kubelet",
            f"--config={config}",
            f"--kubeconfig={self.kubeconfig}",
            f"--root-dir={self.directory}/kubelet",
            f"--cert-dir={self.directory}/kubelet-certificates",
            f"--node-ip={ADDRESS}",
            "--hostname-override=node",
        )

    def start_proxy(self) -> None:
        """By which the node reaches Services, with iptables of its own network."""
        self.start(
            "kube-proxy",
            f"--kubeconfig={self.kubeconfig}",
            "--hostname-override=node",
            "--proxy-mode=iptables",
            f"--cluster-cidr={PODS}",
            "--iptables-localhost-nodeports=false",
            "--conntrack-max-per-core=0",  # the machine's own stays
            "--metrics-bind-address=127.0.0.1:10249",
        )

    # The client

    def kubectl(self, *arguments: object, check: bool = True, stdin: str | None = None) -> Result:
        """Run ``kubectl`` to its end."""
        command = self.node.inside(PROGRAMS / "kubectl", f"--kubeconfig={self.kubeconfig}", *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, input=stdin, env=self.node.env)
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {arguments}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return Result(command, done.returncode, done.stdout, done.stderr)

    def apply(self, *manifests: Any) -> None:
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))

    def pod(self, name: str) -> dict[str, Any]:
        """Its status; empty if there is no such pod."""
        done = self.kubectl("get", "pod", name, "-o", "json", check=False)
        found: dict[str, Any] = json.loads(done.out)["status"] if done.code == 0 else {}
        return found

    def wait_phase(self, name: str, phase: str) -> dict[str, Any]:
        until(lambda: self.pod(name).get("phase") == phase, f"{name} to be {phase}", self)
        return self.pod(name)

    def delete(self, name: str, *flags: str) -> None:
        self.kubectl("delete", "pod", name, "--wait=true", *flags)

    def left(self) -> dict[str, object]:
        """What pods have left on the node."""
        mounts = Path(f"/proc/{self.node._holder.pid}/mountinfo").read_text().splitlines()
        points = [line.split()[4] for line in mounts]
        state = self.directory / "state"
        seen = {
            "bundles": self.node.bundles("k8s.io"),
            "mounts": [point for point in points if "/pods/" in point or "/sandboxes/" in point or "/rootfs" in point],
            "cgroups": [path for root in hierarchies() for path in _below(root / self.cgroup / "kubepods", "pod")],
            "namespaces": list((state / "io.containerd.grpc.v1.cri/netns").glob("*")),
            "processes": leftovers._processes("cgroup", f"/{self.cgroup}/kubepods/"),
            "sockets": [path for path in (self.directory / "shimd").rglob("*.sock") if "native" in str(path)],
        }
        return {kind: things for kind, things in seen.items() if things}


_READY = "jsonpath={.items[0].status.conditions[?(@.type=='Ready')].status}"


def until(condition: Callable[[], object], what: str, cluster: Cluster) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() >= deadline:
            seen = cluster.kubectl("describe", "pods", check=False).out[-3000:]
            raise AssertionError(f"waited {PATIENCE} s for {what}\n{seen}")
        time.sleep(0.2)


def _kubeconfig() -> dict[str, Any]:
    server = {"server": f"https://{ADDRESS}:6443", "insecure-skip-tls-verify": True}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": server}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }


def _kubelet(cluster: Cluster) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "address": ADDRESS,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cluster.cgroup}",
        "containerRuntimeEndpoint": f"unix://{cluster.node.address}",
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "1Mi"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "imageGCHighThresholdPercent": 100,
        "resolvConf": "",
        "healthzPort": 0,
    }


def hierarchies() -> list[Path]:
    """Mount points of cgroup hierarchies that kubelets use."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return [root]
    return [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]


@contextmanager
def running() -> Iterator[Cluster]:
    """A cluster whose node is ready; its end leaves nothing."""
    directory = Path(tempfile.mkdtemp(prefix="shimd-k8s-"))
    directory.chmod(0o755)
    node = Node(VERSIONS[1], directory)
    cluster = Cluster(node)
    try:
        node.prepare()
        node.start()
        cluster.up()
        yield cluster
        cluster.down()
        node.stop()
        node.stop_daemon()
    finally:
        for process in cluster._processes.values():
            process.kill()
        node.close()
        leftovers.end(list(leftovers.processes_of(directory)))
        _remove(cluster)
        shutil.rmtree(directory, ignore_errors=True)


def _remove(cluster: Cluster) -> None:
    for root in hierarchies():
        for path in reversed(_below(root / cluster.cgroup)):
            with suppress(OSError):
                path.rmdir()
        with suppress(OSError):
            (root / cluster.cgroup).rmdir()


def _below(directory: Path, prefix: str = "") -> list[Path]:
    """Directories by the beginning of their names, those above first; some may go while they are looked for."""
    found = [Path(above, name) for above, names, _files in os.walk(directory) for name in names]
    return [path for path in found if path.name.startswith(prefix)]
