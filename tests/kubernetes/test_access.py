"""How people and the kubelet reach into pods: attach, cp, what top is made of, port-forward, probes by the network."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.box import Runtime
from tests.e2e.test_sockets import HELLO, IMAGE, Server, servers
from tests.kubernetes.cluster import PROGRAMS, Cluster, until
from tests.kubernetes.conftest import TOOLS
from tests.kubernetes.test_cluster import container, every, pod, ready, restarts, with_directories


@every
def test_attach(cluster: Cluster, runtime: Runtime) -> None:
    """Its input is the container's, and its output is shown, to its end."""
    cluster.apply(pod("attached", runtime, container(runtime, "cat", stdin=True, stdinOnce=True)))
    cluster.wait_phase("attached", "Running")
    said = cluster.kubectl("attach", "-i", "attached", stdin="one\ntwo\n").out
    assert said.splitlines()[-2:] == ["one", "two"]
    cluster.wait_phase("attached", "Succeeded")
    assert cluster.kubectl("logs", "attached").out == "one\ntwo\n"


@with_directories
def test_copying_by_way_of_a_sidecar(cluster: Cluster, runtime: Runtime, tmp_path: Path) -> None:
    """kubectl runs tar in the container, which Wasm images have not: a native one that shares the volume has."""
    mounts = [{"name": "shared", "mountPath": "/mnt"}]
    app = container(runtime, "sleep", 600, volumeMounts=mounts)
    tools = {"name": "tools", "image": TOOLS, "imagePullPolicy": "Never", "volumeMounts": mounts}
    tools["command"] = ["/bin/busybox", "sleep", "600"]
    cluster.apply(pod("copied", runtime, app, tools, volumes=[{"name": "shared", "emptyDir": {}}]))
    cluster.wait_phase("copied", "Running")
    (tmp_path / "there").write_text("to the app\n")
    cluster.kubectl("cp", tmp_path / "there", "copied:/mnt/file", "-c", "tools")
    assert (
        cluster.kubectl("exec", "copied", "-c", "app", "--", runtime.program, "read", "/mnt/file").out == "to the app\n"
    )
    cluster.kubectl("exec", "copied", "-c", "app", "--", runtime.program, "write", "/mnt/new", "from the app")
    cluster.kubectl("cp", "copied:/mnt/new", tmp_path / "back", "-c", "tools")
    assert (tmp_path / "back").read_text() == "from the app\n"


@every
def test_what_top_shows(cluster: Cluster, runtime: Runtime) -> None:
    """metrics-server reads it from the kubelet, which has it from CRI."""
    cluster.apply(pod("busy", runtime, container(runtime, "spin")))
    cluster.wait_phase("busy", "Running")
    until(lambda: metric(cluster, "busy", "cpu_usage_seconds_total") > 1, "a second of processor time", cluster)
    assert 100_000 < metric(cluster, "busy", "memory_working_set_bytes") < 200_000_000


def metric(cluster: Cluster, name: str, what: str) -> float:
    """Of a pod's container ``app``; 0 if the kubelet has none yet."""
    text = cluster.kubectl("get", "--raw", "/api/v1/nodes/node/proxy/metrics/resource").out
    pattern = rf'^container_{what}{{container="app",namespace="default",pod="{name}"}} (\S+)'
    found = re.search(pattern, text, re.MULTILINE)
    return float(found[1]) if found else 0


def serving(server: Server, **more: Any) -> dict[str, Any]:
    app = {"name": "app", "image": IMAGE, "imagePullPolicy": "Never", "command": [server.program], **more}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "server", "annotations": dict(server.annotations)},
        "spec": {"containers": [app], "runtimeClassName": server.handler},
    }


@servers
def test_probes_by_the_network(cluster: Cluster, server: Server) -> None:
    http = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    tcp = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    cluster.apply(serving(server, readinessProbe=http, livenessProbe=tcp))
    until(lambda: ready(cluster, "server"), "readiness", cluster)
    assert restarts(cluster, "server") == 0
    with forwarded(cluster, "server") as address:
        command = cluster.node.inside("python3", "-c", FETCH, f"http://{address}/")
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == HELLO


@servers
def test_a_port_that_nobody_listens_at(cluster: Cluster, server: Server) -> None:
    probe = {"tcpSocket": {"port": 8081}, "periodSeconds": 1, "failureThreshold": 1}
    cluster.apply(serving(server, livenessProbe=probe))
    until(lambda: restarts(cluster, "server") >= 1, "a restart, at the same port", cluster)


FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode(), end='')"


@contextmanager
def forwarded(cluster: Cluster, name: str) -> Iterator[str]:
    """``kubectl port-forward`` to port 8080; where, on the node."""
    kubectl = [PROGRAMS / "kubectl", f"--kubeconfig={cluster.kubeconfig}", "port-forward", name, ":8080"]
    with subprocess.Popen(cluster.node.inside(*kubectl), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[2]
        finally:
            process.terminate()
